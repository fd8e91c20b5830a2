// The generators behind families(), one per file, and what they share. Internal to task/synth.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/task/synth/problem.h"

namespace fathom::synth {

Problem make_addition(Rng& rng, int difficulty);
Problem make_countdown(Rng& rng, int difficulty);
Problem make_fractions(Rng& rng, int difficulty);
Problem make_gcd(Rng& rng, int difficulty);
Problem make_maze(Rng& rng, int difficulty);
Problem make_mod10_chain(Rng& rng, int difficulty);
Problem make_mod_chain(Rng& rng, int difficulty);
Problem make_multiplication(Rng& rng, int difficulty);
Problem make_python(Rng& rng, int difficulty);
Problem make_sort_letters(Rng& rng, int difficulty);
Problem make_sort_numbers(Rng& rng, int difficulty);
Problem make_string_edit(Rng& rng, int difficulty);

// Rewrites thinking and answer of a chain: each step goes wrong with that probability, and the
// chain goes on from there.
void spoil_chain(Problem& problem, double wrong_share, Rng& rng);
// The same for a program: each step may become any step.
void spoil_python(Problem& problem, double wrong_share, Rng& rng);
CodeProblem python_tests(const Problem& problem);

// The sum of the rows (decimal, equally wide, zero-padded) column by column from the right. A
// column is "carry+a+b=ss", then "+c=ss" for each further row, then ">" and the result so far:
//   47+86 -> "0+7+6=13>3;1+4+8=13>133"
std::string add_columns(const std::vector<std::string>& rows);

std::string join(const std::vector<std::string>& parts, std::string_view separator);
// n distinct values of 0 .. limit-1 in random order; n <= limit.
std::vector<int64_t> draw_distinct(Rng& rng, int64_t n, int64_t limit);

}  // namespace fathom::synth
