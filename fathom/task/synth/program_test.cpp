#include "fathom/task/synth/program.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "fathom/base/error.h"
#include "fathom/task/sandbox/sandbox_testing.h"

namespace fathom {
namespace {

// The reference without its line `skip`.
std::string without_line(const std::string& program, int skip) {
  std::istringstream in(program);
  std::string line, out;
  for (int i = 0; std::getline(in, line); ++i)
    if (i != skip) out += line + "\n";
  return out;
}

}  // namespace

TEST_CASE("a programming problem is a function of its stream") {
  Rng a(1, "program"), b(1, "program");
  const ProgramTask one = make_program_task(a, 3, CodeLanguage::kPython),
                    two = make_program_task(b, 3, CodeLanguage::kPython);
  CHECK(one.prompt == two.prompt);
  CHECK(one.reference == two.reference);
  CHECK(one.code.tests[5].expected == two.code.tests[5].expected);
  CHECK(make_program_task(a, 3, CodeLanguage::kPython).prompt != one.prompt);
  CHECK_THROWS_AS(make_program_task(a, 0, CodeLanguage::kPython), Error);
  CHECK_THROWS_AS(make_program_task(a, kMaxProgramDifficulty + 1, CodeLanguage::kPython), Error);
}

TEST_CASE("programming problems do not show their tests, and the splits do not meet") {
  Rng rng(2, "program");
  std::set<std::string> train, held;
  for (int i = 0; i < 200; ++i) {
    const ProgramTask task =
        make_program_task(rng, 1 + i % kMaxProgramDifficulty, CodeLanguage::kCpp, Split::kTrain);
    train.insert(task.reference);
    CHECK(task.prompt.find("in C++") != std::string::npos);
    for (const CodeTest& test : task.code.tests)
      if (test.input.size() > 8) CHECK(task.prompt.find(test.input) == std::string::npos);
  }
  for (int i = 0; i < 20; ++i)
    held.insert(
        make_program_task(rng, 1 + i % 5, CodeLanguage::kPython, Split::kHeldOut).reference);
  for (const std::string& reference : held) CHECK(train.count(reference) == 0);
}

TEST_CASE(
    "the reference passes the hidden tests; nothing, one text and every shortened program fail") {
  FM_SANDBOX_OR_RETURN(sandbox);
  CodeVerifier verifier(sandbox, {});
  Rng rng(3, "program");
  const ProgramTask task = make_program_task(rng, 3, CodeLanguage::kPython);
  CAPTURE(task.prompt);
  const CodeResult right = verifier.check("```python\n" + task.reference + "```\n", task.code);
  CHECK_MESSAGE(right.score == 1, task.reference, right.note);
  for (const std::string wrong : {"", "print(0)\n", "print('none')\n"})
    CHECK(verifier.check_source(wrong, task.code).verdict == CodeVerdict::kWrongAnswer);
  for (int line = 1; line <= task.difficulty + 1; ++line)
    CHECK(verifier.check_source(without_line(task.reference, line), task.code).score == 0);
}

TEST_CASE("every step and every end of the programming problems does in Python what it does here") {
  FM_SANDBOX_OR_RETURN(sandbox);
  CodeVerifier verifier(sandbox, {});
  Rng rng(4, "program");
  std::set<std::string> lines;
  for (int i = 0; i < 40; ++i) {
    const ProgramTask task =
        make_program_task(rng, 1 + i % kMaxProgramDifficulty, CodeLanguage::kPython);
    const CodeResult r = verifier.check_source(task.reference, task.code);
    CHECK_MESSAGE(r.score == 1, task.prompt, task.reference, r.note);
    std::istringstream in(task.reference);
    for (std::string line; std::getline(in, line);) {
      std::replace_if(
          line.begin(), line.end(), [](char c) { return c >= '2' && c <= '9'; }, '#');
      lines.insert(line);
    }
  }
  CHECK(lines.size() == 1 + 13 + 6);
}

TEST_CASE("the family of programs: tests follow from the prompt, noise changes the program only") {
  const FamilyEntry& family = find_family(kPythonFamily);
  Rng rng(5, "program"), again(5, "program");
  const Problem problem = make_problem(kPythonFamily, rng, 2, Split::kTrain);
  const ProgramTask task = make_program_task(again, 2, CodeLanguage::kPython, Split::kTrain);
  CHECK(problem.prompt == task.prompt);
  CHECK(problem.answer == "```python\n" + task.reference + "```");
  const CodeProblem tests = family.tests(problem);
  REQUIRE(tests.tests.size() == task.code.tests.size());
  for (size_t i = 0; i < tests.tests.size(); ++i) {
    CHECK(tests.tests[i].input == task.code.tests[i].input);
    CHECK(tests.tests[i].expected == task.code.tests[i].expected);
  }
  CHECK(spoil_problem(problem, 0, rng).answer == problem.answer);
  const Problem spoiled = spoil_problem(problem, 1, rng);
  CHECK(spoiled.answer != problem.answer);
  CHECK(spoiled.prompt == problem.prompt);
  CHECK(held_out(make_problem(kPythonFamily, rng, 1, Split::kHeldOut)));
  CHECK_THROWS_AS(family.tests({.family = "python", .prompt = "1. Print it."}), Error);
  CHECK_THROWS_WITH_AS(find_family("pyton"), doctest::Contains("pyton"), Error);
}

}  // namespace fathom
