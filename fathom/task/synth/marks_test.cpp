#include "fathom/task/synth/marks.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/task/reward/verdict.h"
#include "fathom/task/synth/task_source.h"
#include "fathom/task/verify/answer.h"

namespace fathom {
namespace {

std::string verdict_of(const std::string& line) {
  const Json chat = Json::parse(line, "line");
  return chat.at("messages").items().at(2).at("content").as_string();
}

TEST_CASE("an answer meets all items just when it is right, and mistakes of every kind occur") {
  int num_right = 0, num_unsorted = 0, num_without = 0, num_longer = 0;
  for (uint64_t i = 0; i < 600; ++i) {
    Rng rng(1, "t", i);
    const Problem p = make_problem("sort_letters", rng, 1 + static_cast<int>(i % 6));
    const std::string answer = odd_answer(p, rng);
    const std::vector<bool> marks = sorting_marks(p, answer);
    REQUIRE(marks.size() == sorting_rubric(p).size());
    CHECK(sorting_marks(p, p.answer) == std::vector<bool>(marks.size(), true));
    const bool all = std::ranges::all_of(marks, std::identity());
    CHECK_MESSAGE(all == answer_correct(p, answer), p.prompt, " ", answer);
    num_right += all;
    num_unsorted += !marks.front();
    num_longer += !marks.back();
    num_without += std::find(marks.begin() + 1, marks.end() - 1, false) != marks.end() - 1;
  }
  CHECK(num_right > 150);
  CHECK(num_right < 300);
  for (const int count : {num_unsorted, num_without, num_longer}) CHECK(count > 40);
}

TEST_CASE("a marked answer is a verdict that reads back; noise turns marks") {
  Rng rng(2, "t");
  const Problem p = make_problem("sort_letters", rng, 2);
  const std::vector<RubricItem> rubric = judged_items(sorting_rubric(p));
  REQUIRE(rubric.size() == 1);
  for (int i = 0; i < 50; ++i) {
    const std::string answer = odd_answer(p, rng);
    const auto verdict = parse_verdict(verdict_of(mark_line(p, answer, 0, rng)), rubric);
    const auto turned = parse_verdict(verdict_of(mark_line(p, answer, 1, rng)), rubric);
    REQUIRE(verdict);
    REQUIRE(turned);
    for (size_t k = 0; k < rubric.size(); ++k) {
      CHECK(fulfilled(rubric[k], (*verdict)[k], answer) == sorting_marks(p, answer)[k]);
      CHECK((*turned)[k].met != (*verdict)[k].met);
    }
  }
}

TEST_CASE("the files: chats, tasks with rubrics, and held-out ones that training does not meet") {
  std::string folder = (std::filesystem::temp_directory_path() / "fathom_marks_XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()));
  MarkOptions options;
  options.output = folder;
  options.records = 20;
  options.tasks = 10;
  options.held_out_tasks = 5;
  make_marks(options);
  CHECK(Json::parse_lines(read_file(folder + "/marks.jsonl"), "marks").size() == 20);
  const std::vector<Task> tasks = read_tasks(folder + "/tasks.jsonl"),
                          held = read_tasks(folder + "/held_out.jsonl");
  REQUIRE(tasks.size() == 10);
  REQUIRE(held.size() == 5);
  for (const Task& t : tasks) CHECK_FALSE(held_out(t.problem));
  for (const Task& t : held) {
    CHECK(held_out(t.problem));
    CHECK(t.rubric.size() == sorting_rubric(t.problem).size());
    CHECK(t.domain == "strings");
  }
  options.family = "mod10";
  CHECK_THROWS_AS(make_marks(options), Error);
  options.family = "sort_letters";
  options.wrong_mark_share = 2;
  CHECK_THROWS_AS(make_marks(options), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace fathom
