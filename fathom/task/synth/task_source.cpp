#include "fathom/task/synth/task_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

constexpr std::string_view kFileEnd = ".jsonl";

// "FILE.jsonl" or "FILE.jsonl*WEIGHT": the file; empty for anything else.
std::string file_of(const std::string& spec, double* weight) {
  const size_t end = spec.rfind(kFileEnd);
  if (end == std::string::npos) return "";
  const std::string_view rest = std::string_view(spec).substr(end + kFileEnd.size());
  if (!rest.empty()) {
    const auto [stop, error] = std::from_chars(rest.data() + 1, rest.data() + rest.size(), *weight);
    if (rest[0] != '*' || error != std::errc() || stop != rest.data() + rest.size() ||
        !(*weight > 0) || !std::isfinite(*weight))
      throw Error(Code::kInvalidArgument,
                  fmt::format("problems: expected FILE.jsonl*WEIGHT, found '{}'", spec),
                  "the weight is a number above 0");
  }
  return spec.substr(0, end + kFileEnd.size());
}

std::string text_or(const Json& line, const char* key, std::string otherwise) {
  const Json* value = line.find(key);
  return value ? value->as_string() : otherwise;
}

std::shared_ptr<const CodeProblem> read_code(const Json& json) {
  auto code = std::make_shared<CodeProblem>();
  const std::string language = text_or(json, "language", "python");
  const auto known = code_language(language);
  if (!known)
    throw Error(Code::kInvalidArgument,
                fmt::format("language: expected python or cpp, found '{}'", language));
  code->language = *known;
  code->checker = text_or(json, "checker", "");
  for (const Json& test : json.at("tests").items())
    code->tests.push_back({test.at("input").as_string(), test.at("expected").as_string()});
  if (code->tests.empty()) throw Error(Code::kInvalidArgument, "code: expected tests, found none");
  return code;
}

// The tests of a generated program.
std::shared_ptr<const CodeProblem> family_tests(const Problem& problem) {
  if (problem.family.empty()) return nullptr;
  const FamilyEntry& family = find_family(problem.family);
  if (family.tests == nullptr) return nullptr;
  return std::make_shared<const CodeProblem>(family.tests(problem));
}

Task read_task(const Json& line) {
  Task task;
  Problem& p = task.problem;
  p.prompt = line.at("prompt").as_string();
  p.family = text_or(line, "family", "");
  p.thinking = text_or(line, "thinking", "");
  p.answer = text_or(line, "answer", "");
  if (const Json* d = line.find("difficulty")) p.difficulty = static_cast<int>(d->as_int());
  const std::string domain = p.family.empty() ? "" : std::string(find_family(p.family).domain);
  task.domain = text_or(line, "domain", domain);
  if (const Json* rubric = line.find("rubric")) task.rubric = rubric_from_json(*rubric);
  const Json* code = line.find("code");
  task.code = code ? read_code(*code) : family_tests(p);
  return task;
}

}  // namespace

AnswerGroup Task::group(int64_t max_tokens, uint64_t seed) const {
  AnswerGroup group;
  group.problem = problem;
  group.domain = domain;
  group.rubric = rubric;
  group.code = code;
  group.max_tokens = max_tokens;
  group.seed = seed;
  return group;
}

std::vector<int32_t> task_prompt(const Tokenizer& tokenizer, const Task& task) {
  for (const std::string_view name : {kUserText, kAssistantText, kThinkText, kEndThinkText}) {
    if (!tokenizer.token_id(name))
      throw Error(Code::kNotFound,
                  fmt::format("expected a token {} in the tokenizer, found none", name),
                  "train the tokenizer with the control tokens of the chat form");
  }
  const Message user{.role = Role::kUser, .content = task.problem.prompt};
  const ChatOptions options{.mode = task.start == TurnStart::kAnswer ? ThinkMode::kChat
                                                                     : ThinkMode::kThinking};
  std::vector<int32_t> ids =
      tokenizer.encode_segments(render_chat({}, {&user, 1}, options, own_chat_template())).ids;
  if (task.start == TurnStart::kChoice) ids.pop_back();  // <think>
  return ids;
}

TaskSource::TaskSource(const TaskOptions& options)
    : thinking_share_(options.thinking_share), choose_mode_(options.choose_mode) {
  if (!(thinking_share_ >= 0 && thinking_share_ <= 1))
    throw Error(Code::kInvalidArgument,
                fmt::format("thinking_share: expected 0 to 1, found {}", thinking_share_));
  if (options.problems.empty())
    throw Error(Code::kInvalidArgument, "problems: expected families or files, found nothing",
                "write problems = [\"mod10:1-3\"]");
  for (const std::string& spec : options.problems) {
    double weight = 1;
    const std::string file = file_of(spec, &weight);
    if (file.empty()) {
      ProblemMix mix({spec});
      parts_.push_back({mix.parts()[0].weight, {}, mix});
    } else {
      parts_.push_back({weight, read_tasks(file), ProblemMix({})});
    }
    total_weight_ += parts_.back().weight;
  }
}

Task TaskSource::draw(uint64_t seed, uint64_t index, Split split) const {
  Rng rng(seed, split == Split::kTrain ? "task" : "task.held_out", index);
  double at = rng.uniform() * total_weight_;
  size_t i = 0;
  while (i + 1 < parts_.size() && at >= parts_[i].weight) at -= parts_[i++].weight;
  const Part& part = parts_[i];
  Task task;
  if (part.tasks.empty()) {
    task.problem = part.mix.draw(rng, split);
    task.domain = part.mix.parts()[0].family->domain;
    task.code = family_tests(task.problem);
  } else {
    task = part.tasks[rng.below(part.tasks.size())];
  }
  const bool thinks = rng.uniform() < thinking_share_;
  task.start = choose_mode_ ? TurnStart::kChoice
               : thinks     ? TurnStart::kThinking
                            : TurnStart::kAnswer;
  return task;
}

bool TaskSource::has_programs() const {
  return std::ranges::any_of(parts_, [](const Part& part) {
    if (part.tasks.empty()) return part.mix.parts()[0].family->tests != nullptr;
    return std::ranges::any_of(part.tasks, [](const Task& t) { return t.code != nullptr; });
  });
}

std::vector<Task> read_tasks(const std::string& path) {
  std::vector<Task> tasks;
  for (const Json& line : Json::parse_lines(read_file(path), path)) {
    try {
      tasks.push_back(read_task(line));
    } catch (const Error& error) {
      throw Error(error.code(),
                  fmt::format("{}: problem {}: {}", path, tasks.size() + 1, error.message()),
                  error.hint());
    }
  }
  if (tasks.empty())
    throw Error(Code::kInvalidArgument, fmt::format("{}: expected problems, found none", path));
  return tasks;
}

}  // namespace fathom
