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

using Items = std::vector<std::string>;

char separator_of(const Problem& problem) { return problem.family == "sort_numbers" ? ',' : ' '; }

Items split_items(std::string_view text, char separator) {
  Items items(1);
  for (const char c : text) {
    if (c == separator)
      items.emplace_back();
    else
      items.back() += c;
  }
  return items;
}

std::string join_items(const Items& items, char separator) {
  return synth::join(items, std::string(1, separator));
}

bool less(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

// One that the answer does not have.
std::string other_item(const Items& items, bool letters, Rng& rng) {
  std::string item;
  do {
    item =
        letters
            ? std::string(1, static_cast<char>('a' + rng.range(0, 25)))
            : std::to_string(rng.range(items[0].size() > 1 ? 10 : 0, items[0].size() > 1 ? 99 : 9));
  } while (std::ranges::find(items, item) != items.end());
  return item;
}

void shuffle(Items& items, Rng& rng) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
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
  for (const ProblemMix::Part& part : mix.parts())
    sorting_rubric({.family = std::string(part.family->name)});
}

}  // namespace

std::vector<RubricItem> sorting_rubric(const Problem& problem) {
  if (problem.family != "sort_letters" && problem.family != "sort_numbers")
    throw Error(
        Code::kInvalidArgument,
        fmt::format("families: expected sort_letters or sort_numbers, found '{}'", problem.family),
        "others have no rubric");
  const char* what = problem.family == "sort_letters" ? "letters" : "numbers";
  using Kind = RubricItem::Kind;
  return {{"order", fmt::format("The {} ascend.", what), 1, Kind::kMust},
          {"same", fmt::format("It has the {} of the question, each once.", what), 1, Kind::kMust}};
}

std::vector<bool> sorting_marks(const Problem& problem, const std::string& answer) {
  Items found = split_items(answer, separator_of(problem)),
        wanted = split_items(problem.answer, separator_of(problem));
  const bool order = std::ranges::is_sorted(found, less);
  std::ranges::sort(found, less);
  return {order, found == wanted};
}

std::string odd_answer(const Problem& problem, Rng& rng) {
  const char separator = separator_of(problem);
  Items items = split_items(problem.answer, separator);
  const auto any = [&] { return rng.below(items.size()); };
  const bool letters = problem.family == "sort_letters";
  const auto drop = [&] { items.erase(items.begin() + static_cast<std::ptrdiff_t>(any())); };
  switch (rng.below(10)) {
    case 0: {  // two neighbours change places
      const size_t i = rng.below(items.size() - 1);
      std::swap(items[i], items[i + 1]);
      break;
    }
    case 1:
      shuffle(items, rng);
      break;
    case 2:  // another item, where it does not belong or in its place
    case 3:
      items[any()] = other_item(items, letters, rng);
      if (rng.below(4) > 0) std::ranges::sort(items, less);
      break;
    case 4:
    case 5:
      drop();
      if (rng.below(3) == 0) drop();
      break;
    case 6: {  // one twice
      const size_t i = any();
      items.insert(items.begin() + static_cast<std::ptrdiff_t>(i), items[i]);
      break;
    }
    default:
      return problem.answer;
  }
  if (rng.below(8) == 0) shuffle(items, rng);
  return join_items(items, separator);
}

std::string mark_line(const Problem& problem, const std::string& answer, double wrong_mark_share,
                      Rng& rng) {
  const std::vector<RubricItem> rubric = sorting_rubric(problem);
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
  const ProblemMix mix(options.families);
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
