#include "fathom/task/synth/marks.h"

#include <fmt/core.h>

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/task/reward/verdict.h"
#include "fathom/task/synth/generators.h"
#include "fathom/task/synth/mix.h"

namespace fathom {
namespace {

using Letters = std::vector<std::string>;

Letters split_letters(std::string_view text) {
  Letters letters(1);
  for (const char c : text) {
    if (c == ' ')
      letters.emplace_back();
    else
      letters.back() += c;
  }
  return letters;
}

// Those of "sort d b c", in this order.
Letters asked_letters(const Problem& problem) {
  return split_letters(std::string_view(problem.prompt).substr(problem.prompt.find(' ') + 1));
}

// One that the answer does not have.
std::string other_letter(const Letters& letters, Rng& rng) {
  std::string letter;
  do {
    letter = std::string(1, static_cast<char>('a' + rng.range(0, 25)));
  } while (std::ranges::find(letters, letter) != letters.end());
  return letter;
}

void shuffle(Letters& letters, Rng& rng) {
  for (size_t i = letters.size(); i > 1; --i) std::swap(letters[i - 1], letters[rng.below(i)]);
}

Json chat_message(const char* role, const std::string& content) {
  return Json::object({{"role", Json::string(role)}, {"content", Json::string(content)}});
}

std::string task_line(const Problem& problem) {
  return Json::object({{"family", Json::string(problem.family)},
                       {"prompt", Json::string(problem.prompt)},
                       {"answer", Json::string(problem.answer)},
                       {"rubric", rubric_to_json(sorting_rubric(problem))}})
      .dump();
}

void check_family(std::string_view family) {
  if (family == "sort_letters") return;
  throw Error(Code::kInvalidArgument,
              fmt::format("family: expected sort_letters, found '{}'", family),
              "others have no rubric");
}

template <class Line>
void write_lines(const std::string& path, int64_t count, Line line) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += line(static_cast<uint64_t>(i)) + '\n';
  write_file_atomic(path, text);
}

void check_mark_options(const MarkOptions& o, const ProblemMix& mix) {
  for (const int64_t count : {o.records, o.tasks, o.held_out_tasks})
    if (count < 0)
      throw Error(Code::kInvalidArgument,
                  fmt::format("records and tasks: expected 0 or more, found {}", count));
  if (!(o.wrong_mark_share >= 0 && o.wrong_mark_share <= 1))
    throw Error(Code::kInvalidArgument,
                fmt::format("wrong_mark_share: expected 0 to 1, found {}", o.wrong_mark_share));
  for (const ProblemMix::Part& part : mix.parts()) check_family(part.family->name);
}

}  // namespace

std::vector<RubricItem> sorting_rubric(const Problem& problem) {
  check_family(problem.family);
  using Kind = RubricItem::Kind;
  std::vector<RubricItem> rubric = {{"order", "The letters ascend.", 1, Kind::kMust}};
  const Letters letters = asked_letters(problem);
  for (const std::string& letter : letters)
    rubric.push_back({letter, letter, 1, Kind::kMust, RubricItem::Check::kContains});
  rubric.push_back(
      {"words", std::to_string(letters.size()), 1, Kind::kMust, RubricItem::Check::kMaxWords});
  return rubric;
}

std::vector<bool> sorting_marks(const Problem& problem, const std::string& answer) {
  const Letters found = split_letters(answer), wanted = asked_letters(problem);
  std::vector<bool> marks = {std::ranges::is_sorted(found)};
  for (const std::string& letter : wanted)
    marks.push_back(std::ranges::find(found, letter) != found.end());
  marks.push_back(found.size() <= wanted.size());
  return marks;
}

std::string odd_answer(const Problem& problem, Rng& rng) {
  Letters letters = split_letters(problem.answer);
  const auto any = [&] { return rng.below(letters.size()); };
  const auto drop = [&] { letters.erase(letters.begin() + static_cast<std::ptrdiff_t>(any())); };
  switch (rng.below(10)) {
    case 0: {  // two neighbours change places
      const size_t i = rng.below(letters.size() - 1);
      std::swap(letters[i], letters[i + 1]);
      break;
    }
    case 1:
      shuffle(letters, rng);
      break;
    case 2:  // another letter, where it does not belong or in its place
    case 3:
      letters[any()] = other_letter(letters, rng);
      if (rng.below(4) > 0) std::ranges::sort(letters);
      break;
    case 4:
    case 5:
      drop();
      if (rng.below(3) == 0) drop();
      break;
    case 6: {  // one twice
      const size_t i = any();
      letters.insert(letters.begin() + static_cast<std::ptrdiff_t>(i), letters[i]);
      break;
    }
    default:
      return problem.answer;
  }
  if (rng.below(8) == 0) shuffle(letters, rng);
  return synth::join(letters, " ");
}

std::string mark_line(const Problem& problem, const std::string& answer, double wrong_mark_share,
                      Rng& rng) {
  const std::vector<RubricItem> rubric = judged_items(sorting_rubric(problem));
  std::vector<bool> marks = sorting_marks(problem, answer);
  const CompletionRequest request = judge_request(problem.prompt, answer, rubric, rng.next());
  Json items = Json::array();
  for (size_t i = 0; i < rubric.size(); ++i) {
    if (rng.uniform() < wrong_mark_share) marks[i] = !marks[i];
    items.push(Json::object({{"id", Json::string(rubric[i].id)},
                             {"met", Json::boolean(marks[i])},
                             {"evidence", Json::string(marks[i] ? answer : "")}}));
  }
  Json chat = Json::array();
  for (const Message& m : request.messages)
    chat.push(chat_message(m.role == Role::kSystem ? "system" : "user", m.content));
  chat.push(chat_message("assistant", Json::object({{"items", std::move(items)}}).dump()));
  return Json::object({{"messages", std::move(chat)}}).dump();
}

void make_marks(const MarkOptions& options) {
  const ProblemMix mix({options.family});
  check_mark_options(options, mix);
  make_folders(options.output);
  const auto seed = static_cast<uint64_t>(options.seed);
  const std::string folder = options.output + '/';
  write_lines(folder + "marks.jsonl", options.records, [&](uint64_t i) {
    Rng rng(seed, "marks.record", i);
    const Problem problem = mix.draw(rng, Split::kTrain);
    const std::string answer = odd_answer(problem, rng);
    return mark_line(problem, answer, options.wrong_mark_share, rng);
  });
  const auto tasks = [&](const char* name, Split split, int64_t count) {
    write_lines(folder + name, count, [&](uint64_t i) {
      Rng rng(seed, split == Split::kTrain ? "marks.task" : "marks.held_out", i);
      return task_line(mix.draw(rng, split));
    });
  };
  tasks("tasks.jsonl", Split::kTrain, options.tasks);
  tasks("held_out.jsonl", Split::kHeldOut, options.held_out_tasks);
}

}  // namespace fathom
