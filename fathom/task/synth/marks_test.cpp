#include "fathom/task/synth/marks.h"

#include <doctest/doctest.h>

#include <filesystem>

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

TEST_CASE("an answer meets all items just when it is right, and answers of every kind occur") {
  for (const char* family : {"sort_letters", "sort_numbers"}) {
    int counts[2][2] = {};
    for (uint64_t i = 0; i < 600; ++i) {
      Rng rng(1, "t", i);
      const Problem p = make_problem(family, rng, 1 + static_cast<int>(i % 6));
      CHECK(sorting_marks(p, p.answer) == std::vector<bool>{true, true});
      const std::string answer = odd_answer(p, rng);
      const std::vector<bool> marks = sorting_marks(p, answer);
      REQUIRE(marks.size() == sorting_rubric(p).size());
      CHECK_MESSAGE((marks[0] && marks[1]) == answer_correct(p, answer), p.prompt, " ", answer);
      ++counts[marks[0]][marks[1]];
    }
    CHECK(counts[1][1] > 150);
    for (const int count : {counts[0][0], counts[0][1], counts[1][0]}) CHECK(count > 40);
  }
}

TEST_CASE("a marked answer is a verdict that reads back; noise turns marks") {
  Rng rng(2, "t");
  const Problem p = make_problem("sort_letters", rng, 2);
  const std::vector<RubricItem> rubric = sorting_rubric(p);
  for (int i = 0; i < 50; ++i) {
    const std::string answer = odd_answer(p, rng);
    for (const bool turned : {false, true}) {
      const auto verdict = parse_verdict(verdict_of(mark_line(p, answer, turned, rng)), rubric);
      REQUIRE(verdict);
      const std::vector<bool> marks = sorting_marks(p, answer);
      for (size_t k = 0; k < marks.size(); ++k)
        CHECK(fulfilled(rubric[k], (*verdict)[k], answer) == (marks[k] != turned));
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
    CHECK(t.rubric.size() == 2);
    CHECK(t.domain == "strings");
  }
  options.families = {"mod10"};
  CHECK_THROWS_AS(make_marks(options), Error);
  options.families = {"sort_letters"};
  options.wrong_mark_share = 2;
  CHECK_THROWS_AS(make_marks(options), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace fathom
