#include "fathom/task/synth/problem.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/options.h"
#include "fathom/task/synth/generators.h"
#include "fathom/task/synth/program.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

constexpr FamilyEntry kFamilies[] = {
    {"addition", "math", 6, synth::make_addition,
     "two to four numbers, column by column with carries"},
    {"countdown", "search", 4, synth::make_countdown,
     "reach a target from three or four numbers by search"},
    {"fractions", "math", 3, synth::make_fractions,
     "sum, difference or product of two fractions, right by value", nullptr, true},
    {"gcd", "math", 4, synth::make_gcd, "greatest common divisor by repeated subtraction"},
    {"maze", "search", 3, synth::make_maze, "shortest path on a grid by breadth-first search"},
    {"mod10", "math", 8, synth::make_mod10_chain, "operator chain modulo 10, left to right",
     synth::spoil_chain},
    {"modn", "math", 8, synth::make_mod_chain, "operator chain modulo 7, 11 or 13, left to right",
     synth::spoil_chain},
    {"multiplication", "math", 5, synth::make_multiplication, "partial products and their sum"},
    {"sort_letters", "strings", 6, synth::make_sort_letters, "insertion sort of letters"},
    {"sort_numbers", "strings", 6, synth::make_sort_numbers, "insertion sort of numbers"},
    {"string_edit", "strings", 4, synth::make_string_edit,
     "reverse, dedup, replace, uppercase, rotate"},
};
constexpr FamilyEntry kPrograms = {
    kPythonFamily,
    "code",
    kMaxProgramDifficulty,
    synth::make_python,
    "a program for a list of numbers, told in words and run against hidden tests",
    synth::spoil_python,
    false,
    synth::python_tests};
static_assert(std::ranges::is_sorted(kFamilies, {}, &FamilyEntry::name));

constexpr uint64_t kHeldOutOneIn = 50;

// Family and prompt, with the operands of a commutative prompt in sorted order; of programs what
// they do, without the example.
std::string split_key(const Problem& problem) {
  if (problem.family == kPythonFamily) return problem.answer;
  std::string key = problem.prompt;
  const char op = problem.family == "addition" ? '+' : problem.family == "multiplication" ? '*' : 0;
  if (op != 0) {
    std::vector<std::string> operands(1);
    for (const char c : problem.prompt) {
      if (c == op) {
        operands.emplace_back();
      } else if (c >= '0' && c <= '9') {
        operands.back() += c;
      }
    }
    std::sort(operands.begin(), operands.end());
    key = synth::join(operands, std::string(1, op));
  }
  return problem.family + '\n' + key;
}

}  // namespace

std::span<const FamilyEntry> families() { return kFamilies; }

const FamilyEntry& find_family(std::string_view name) {
  std::vector<std::string> names;
  for (const FamilyEntry& entry : kFamilies) {
    if (entry.name == name) return entry;
    names.emplace_back(entry.name);
  }
  if (name == kPrograms.name) return kPrograms;
  names.emplace_back(kPrograms.name);
  const std::string near = nearest_name(name, names);
  throw Error(Code::kNotFound, fmt::format("no problem family is called '{}'", name),
              near.empty() ? "families: " + synth::join(names, ", ")
                           : fmt::format("did you mean '{}'?", near));
}

Problem make_problem(std::string_view family, Rng& rng, int difficulty) {
  const FamilyEntry& entry = find_family(family);
  if (difficulty < 1 || difficulty > entry.max_difficulty) {
    throw Error(Code::kInvalidArgument, fmt::format("{} has difficulties 1 to {}, not {}",
                                                    entry.name, entry.max_difficulty, difficulty));
  }
  Problem problem = entry.make(rng, difficulty);
  problem.family = std::string(entry.name);
  problem.difficulty = difficulty;
  return problem;
}

bool held_out(const Problem& problem) {
  return hash_bytes(split_key(problem)) % kHeldOutOneIn == 0;
}

Problem make_problem(std::string_view family, Rng& rng, int difficulty, Split split) {
  Problem problem = make_problem(family, rng, difficulty);
  while (held_out(problem) != (split == Split::kHeldOut)) {
    problem = make_problem(family, rng, difficulty);
  }
  return problem;
}

Problem spoil_problem(const Problem& problem, double wrong_share, Rng& rng) {
  const FamilyEntry& family = find_family(problem.family);
  if (family.spoil == nullptr) {
    throw Error(Code::kInvalidArgument,
                fmt::format("wrong_step_share: {} has no steps that can be spoiled", family.name),
                "use the families mod10, modn and python, or a share of 0");
  }
  Problem spoiled = problem;
  family.spoil(spoiled, wrong_share, rng);
  return spoiled;
}

std::string second_digits(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      append_utf8(U'\u0966' + static_cast<char32_t>(c - '0'), out);
    } else {
      out += c;
    }
  }
  return out;
}

namespace synth {

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

std::vector<int64_t> draw_distinct(Rng& rng, int64_t n, int64_t limit) {
  std::vector<int64_t> values;
  while (static_cast<int64_t>(values.size()) < n) {
    const int64_t value = rng.range(0, limit - 1);
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  }
  return values;
}

}  // namespace synth
}  // namespace fathom
