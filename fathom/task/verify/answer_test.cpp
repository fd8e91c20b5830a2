#include "fathom/task/verify/answer.h"

#include <doctest/doctest.h>

#include <string>

namespace fathom {
namespace {

Problem fixed(std::string family, std::string prompt, std::string answer) {
  return {std::move(family), std::move(prompt), "", std::move(answer), 1};
}

}  // namespace

TEST_CASE("every gold answer is accepted, alone and after thinking") {
  for (const FamilyEntry& family : families()) {
    for (int difficulty = 1; difficulty <= family.max_difficulty; ++difficulty) {
      for (uint64_t i = 0; i < 200; ++i) {
        Rng rng(11, family.name, i);
        const Problem p = make_problem(family.name, rng, difficulty);
        INFO(p.family << " " << p.prompt << " " << p.answer);
        CHECK(answer_correct(p, p.answer));
        CHECK(answer_correct(p, "<think>" + p.thinking + "</think>" + p.answer));
        CHECK(answer_correct(p, "</think>\n " + p.answer + " \n"));
      }
    }
  }
}

TEST_CASE("planted near misses are rejected in every family") {
  for (const FamilyEntry& family : families()) {
    for (uint64_t i = 0; i < 200; ++i) {
      Rng rng(12, family.name, i);
      const Problem p = make_problem(family.name, rng, family.max_difficulty);
      INFO(p.family << " " << p.prompt << " " << p.answer);
      CHECK_FALSE(answer_correct(p, ""));
      CHECK_FALSE(answer_correct(p, p.answer + "x"));
      CHECK_FALSE(answer_correct(p, p.answer + " 1"));
      CHECK_FALSE(answer_correct(p, "x" + p.answer));
      CHECK_FALSE(answer_correct(p, "<think>" + p.thinking + p.answer));  // thinking never ends
      CHECK_FALSE(answer_correct(p, p.answer + "</think>"));              // nothing after it
      CHECK_FALSE(answer_correct(p, "</think>" + p.answer + "</think>" + p.answer));
      CHECK_FALSE(answer_correct(p, p.answer.substr(0, p.answer.size() - 1)));
      std::string changed = p.answer;  // one sign off
      const size_t at = rng.below(changed.size());
      if (changed[at] >= '0' && changed[at] <= '9') {
        changed[at] = static_cast<char>('0' + (changed[at] - '0' + 1) % 10);
        if (p.family != "countdown") CHECK_FALSE(answer_correct(p, changed));
      }
    }
  }
}

TEST_CASE("blanks inside a number or between letters matter, other blanks do not") {
  const Problem sum = fixed("addition", "47+86=?", "133");
  CHECK(answer_correct(sum, " 133\n"));
  CHECK_FALSE(answer_correct(sum, "1 33"));
  CHECK_FALSE(answer_correct(sum, "0133"));
  const Problem sorted = fixed("sort_numbers", "sort 47,12", "12,47");
  CHECK(answer_correct(sorted, "12, 47"));
  CHECK_FALSE(answer_correct(sorted, "12 47"));
  const Problem letters = fixed("sort_letters", "sort b a", "a b");
  CHECK(answer_correct(letters, "a  b"));
  CHECK_FALSE(answer_correct(letters, "ab"));
}

TEST_CASE("fractions are right by value, and the question is no answer") {
  const Problem sum = fixed("fractions", "2/3+1/6=?", "15/18");
  for (const char* right : {"15/18", "5/6", "\\frac{5}{6}", " 10 / 12 "})
    CHECK_MESSAGE(answer_correct(sum, right), right);
  for (const char* wrong : {"2/3+1/6", "5/7", "0.83", "15/18+0", "5/6 or 1", "18/15", "/", ""})
    CHECK_MESSAGE(!answer_correct(sum, wrong), wrong);
}

TEST_CASE("countdown takes any right expression and each number at most once") {
  const std::string prompt = "make 24 from 4 6 1 1";
  for (const char* right :
       {"4*6", "6*4", "(4)*6", "4*6+1-1", "4*6*1/1", "( 4 * 6 )", "6/(1/1)*4"}) {
    CHECK_MESSAGE(countdown_correct(prompt, right), right);
  }
  for (const char* wrong :
       {"24", "4*6*1*1*1", "4+6", "4*6=24", "4*6)", "(4*6", "4**6", "", "4*6+", "-4*-6", "4*6/0",
        "6*4+1/4*0", "4 6*", "99999999999999999999", "4*6+x", "6*6-4*4+4"}) {
    CHECK_MESSAGE(!countdown_correct(prompt, wrong), wrong);
  }
  CHECK_FALSE(countdown_correct("make 2 from 5 2", "5/2"));  // not exact
  CHECK_FALSE(countdown_correct("make", "1"));
  CHECK_FALSE(countdown_correct(prompt, std::string(100000, '(')));
}

TEST_CASE("maze takes every shortest path and no other") {
  const std::string prompt = "maze 200/000/003";
  for (const char* right : {"D D R R", "RRDD", "D R D R"}) CHECK(maze_correct(prompt, right));
  for (const char* wrong :
       {"D D R", "D D R R R", "D U D D R R", "U D D R R", "d d r r", "D,D,R,R", ""}) {
    CHECK_MESSAGE(!maze_correct(prompt, wrong), wrong);
  }
  CHECK_FALSE(maze_correct("maze 210/000/003", "R R D D"));  // through the wall
  CHECK_FALSE(maze_correct("maze 213", "R R"));
  CHECK_FALSE(maze_correct("maze 2", ""));
  CHECK_FALSE(maze_correct("labyrinth", "R"));
}

}  // namespace fathom
