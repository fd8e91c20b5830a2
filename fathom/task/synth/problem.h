// Generated problems with exact answers and worked thinking. Every family is a pure function of a
// random stream and a difficulty, so a problem can be made again from (family, seed, index,
// difficulty).
//
// The traces are written for very small transformers: one fixed form per family, each step needs
// one table look-up or one copy from nearby, digits stand alone or in short numbers, letters are
// separated by blanks so that each is one token. The last step always shows the answer or all of
// its parts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fathom/base/rng.h"

namespace fathom {

struct CodeProblem;

struct Problem {
  std::string family;
  std::string prompt;
  std::string thinking;  // true statements that lead to the answer
  std::string answer;    // canonical; verify/ decides which other texts are right too
  int difficulty = 1;
  bool operator==(const Problem&) const = default;
};

struct FamilyEntry {
  std::string_view name, domain;
  int max_difficulty;  // difficulties are 1 .. max_difficulty
  Problem (*make)(Rng& rng, int difficulty);
  std::string_view doc;
  void (*spoil)(Problem& problem, double wrong_share, Rng& rng) = nullptr;  // see spoil_problem
  bool by_value = false;  // answers are mathematics, any text of the same value is right
  // Where the answer is a program: its tests, which follow from the prompt. Throws Error when the
  // prompt is not one of the family's.
  CodeProblem (*tests)(const Problem& problem) = nullptr;
};

// All families but those whose answers are programs, sorted by name.
std::span<const FamilyEntry> families();
// Of all families. Throws Error (kNotFound) that names the nearest family.
const FamilyEntry& find_family(std::string_view name);

// One problem; draws from `rng`. Throws Error when the family is unknown or the difficulty is out
// of its range.
Problem make_problem(std::string_view family, Rng& rng, int difficulty);

// About 2 % of all problems, chosen by a hash of family and prompt, are kept for evaluation. The
// two orders of a sum or product fall on the same side, so an evaluation problem is never seen
// mirrored in training.
bool held_out(const Problem& problem);

// Thinking in which each step is wrong with probability `wrong_share`, and the answer that it leads
// to; a program with such steps. Throws Error for families whose steps cannot be spoiled (all but
// chains and programs).
Problem spoil_problem(const Problem& problem, double wrong_share, Rng& rng);

// The digits 0-9 of a text as those of Devanagari: a second language for numbers.
std::string second_digits(std::string_view text);

enum class Split : uint8_t { kTrain, kHeldOut };
// Draws until the problem belongs to `split`.
Problem make_problem(std::string_view family, Rng& rng, int difficulty, Split split);

}  // namespace fathom
