// Generated programming problems: what to do with a line of integers, step by step, in words, and
// hidden tests. Unlike families() the answer is a program, which only running it can judge; in
// Python it is the family "python" (find_family).
#pragma once

#include <string>
#include <string_view>

#include "fathom/base/rng.h"
#include "fathom/task/synth/problem.h"
#include "fathom/task/verify/code.h"

namespace fathom {

inline constexpr std::string_view kPythonFamily = "python";

struct ProgramTask {
  std::string prompt;     // asks for a program in code.language, with one example
  CodeProblem code;       // the tests; the example of the prompt is not among them
  std::string reference;  // a right program, in Python
  int difficulty = 1;     // number of steps before the last, which prints
};

inline constexpr int kMaxProgramDifficulty = 5;

// Draws from `rng` until every step matters: leaving any one out, or printing one text for all
// inputs, fails some test. Throws Error when the difficulty is out of its range.
ProgramTask make_program_task(Rng& rng, int difficulty, CodeLanguage language);
// Draws until the task belongs to `split`; the same task in two languages falls on the same side.
ProgramTask make_program_task(Rng& rng, int difficulty, CodeLanguage language, Split split);

}  // namespace fathom
