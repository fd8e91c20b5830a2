#include "fathom/task/synth/corpus.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/task/synth/prose.h"

namespace fathom {
namespace {

constexpr size_t kFlushBytes = size_t{1} << 20;

// line(i) for i < count, one per line, into `path`; returns the bytes written.
template <class Line>
uint64_t write_lines(const std::string& path, int64_t count, Line line) {
  if (count == 0) return 0;
  AtomicWriter file(path);
  std::string buffer;
  uint64_t total_bytes = 0;
  for (int64_t i = 0; i < count; ++i) {
    buffer += line(static_cast<uint64_t>(i));
    buffer += '\n';
    if (buffer.size() < kFlushBytes && i + 1 < count) continue;
    file.write(buffer.data(), buffer.size());
    total_bytes += buffer.size();
    buffer.clear();
  }
  file.commit();
  return total_bytes;
}

// The problem as its steps are shown. Draws only for what is asked for, so that other corpora stay
// what they were.
Problem with_noise(const CorpusOptions& o, Problem problem, Rng& rng) {
  if (o.wrong_step_share > 0) problem = spoil_problem(problem, o.wrong_step_share, rng);
  if (o.second_digits_share > 0 && rng.uniform() < o.second_digits_share)
    problem.thinking = second_digits(problem.thinking);
  return problem;
}

uint64_t seed_of(const CorpusOptions& options) { return static_cast<uint64_t>(options.seed); }

}  // namespace

void check_corpus_options(const CorpusOptions& o) {
  const auto at_least = [](const char* name, int64_t value, int64_t low) {
    if (value < low) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} is at least {}, not {}", name, low, value));
    }
  };
  const auto share = [](const char* name, double value) {
    if (!(value >= 0 && value <= 1)) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} is a share of 0 to 1, not {}", name, value));
    }
  };
  at_least("documents", o.documents, 0);
  at_least("problems_per_document", o.problems_per_document, 1);
  at_least("chat_records", o.chat_records, 0);
  at_least("held_out_problems", o.held_out_problems, 0);
  share("worked_share", o.worked_share);
  share("prose_share", o.prose_share);
  share("thinking_share", o.thinking_share);
  share("wrong_step_share", o.wrong_step_share);
  share("second_digits_share", o.second_digits_share);
}

std::string problem_text(const Problem& problem, bool worked) {
  std::string text = "Problem: " + problem.prompt + '\n';
  if (worked) text += "Thinking: " + problem.thinking + '\n';
  return text + "Answer: " + problem.answer + '\n';
}

std::string pretrain_document(const CorpusOptions& options, const ProblemMix& mix, uint64_t index) {
  constexpr int64_t kMostSentences = 6;
  Rng rng(seed_of(options), "corpus.document", index);
  std::string text;
  if (rng.uniform() < options.prose_share) {
    for (int64_t n = rng.range(2, kMostSentences); n > 0; --n) {
      text += make_sentence(rng) + (n > 1 ? ' ' : '\n');
    }
    return text;
  }
  for (int64_t n = rng.range(1, options.problems_per_document); n > 0; --n) {
    if (rng.uniform() < options.prose_share) text += make_sentence(rng) + '\n';
    const bool worked = rng.uniform() < options.worked_share;
    const Problem problem = mix.draw(rng, Split::kTrain);
    text += problem_text(worked ? with_noise(options, problem, rng) : problem, worked);
  }
  return text;
}

SftExample sft_example(const CorpusOptions& options, const ProblemMix& mix, uint64_t index) {
  Rng rng(seed_of(options), "corpus.sft", index);
  const bool thinking = rng.uniform() < options.thinking_share;
  const Problem problem = mix.draw(rng, Split::kTrain);
  const bool shows_steps = thinking || find_family(problem.family).tests != nullptr;
  return {shows_steps ? with_noise(options, problem, rng) : problem, thinking};
}

Problem held_out_problem(const CorpusOptions& options, const ProblemMix& mix, uint64_t index) {
  Rng rng(seed_of(options), "corpus.held_out", index);
  return mix.draw(rng, Split::kHeldOut);
}

std::string document_line(const std::string& text) {
  return Json::object({{"text", Json::string(text)}}).dump();
}

std::string chat_line(const Problem& problem, bool thinking) {
  Json user =
      Json::object({{"role", Json::string("user")}, {"content", Json::string(problem.prompt)}});
  Json assistant = Json::object({{"role", Json::string("assistant")}});
  if (thinking) assistant.set("reasoning_content", Json::string(problem.thinking));
  assistant.set("content", Json::string(problem.answer));
  return Json::object({{"messages", Json::array({std::move(user), std::move(assistant)})}}).dump();
}

std::string problem_line(const Problem& problem) {
  return Json::object({{"family", Json::string(problem.family)},
                       {"difficulty", Json::number(int64_t{problem.difficulty})},
                       {"prompt", Json::string(problem.prompt)},
                       {"thinking", Json::string(problem.thinking)},
                       {"answer", Json::string(problem.answer)}})
      .dump();
}

std::vector<Problem> read_problems(const std::string& path) {
  std::vector<Problem> problems;
  for (const Json& line : Json::parse_lines(read_file(path), path)) {
    try {
      Problem problem;
      problem.family = line.at("family").as_string();
      problem.difficulty = static_cast<int>(line.at("difficulty").as_int());
      problem.prompt = line.at("prompt").as_string();
      problem.thinking = line.at("thinking").as_string();
      problem.answer = line.at("answer").as_string();
      problems.push_back(std::move(problem));
    } catch (const Error& error) {
      throw Error(error.code(),
                  fmt::format("{}: problem {}: {}", path, problems.size() + 1, error.message()),
                  "each line holds family, difficulty, prompt, thinking and answer");
    }
  }
  return problems;
}

CorpusCounts make_corpus(const CorpusOptions& options) {
  check_corpus_options(options);
  const ProblemMix mix(options.families);
  make_folders(options.output);
  CorpusCounts counts{options.documents, options.chat_records, options.held_out_problems};
  const std::string folder = options.output + '/';
  counts.pretrain_bytes =
      write_lines(folder + "pretrain.jsonl", options.documents,
                  [&](uint64_t i) { return document_line(pretrain_document(options, mix, i)); });
  counts.sft_bytes = write_lines(folder + "sft.jsonl", options.chat_records, [&](uint64_t i) {
    const SftExample example = sft_example(options, mix, i);
    return chat_line(example.problem, example.thinking);
  });
  counts.held_out_bytes =
      write_lines(folder + "held_out.jsonl", options.held_out_problems,
                  [&](uint64_t i) { return problem_line(held_out_problem(options, mix, i)); });
  return counts;
}

}  // namespace fathom
