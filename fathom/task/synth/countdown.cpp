// "make 24 from 7 3 5": an expression of the numbers, each used at most once, that has the target
// as its value. The thinking tries pairs in a fixed order:
// "7+3=10:10+5=15,10-5=5,10*5=50;7-3=4:..." and stops at the target. Four numbers begin with one
// step that leaves three: "6-2=4|4,7,3|7+4=11:...".
#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

constexpr int64_t kLargestValue = 99;

struct Term {
  int64_t value;
  std::string text;  // the expression; in parentheses unless a number
};

struct Step {
  std::string statement;  // "7-3=4"
  Term term;
};

// p op q with the larger value in front; nothing where the result is not a number of 1 .. 99 or the
// step is idle.
std::optional<Step> apply(char op, const Term& a, const Term& b) {
  const Term& p = a.value >= b.value ? a : b;
  const Term& q = a.value >= b.value ? b : a;
  int64_t value = 0;
  switch (op) {
    case '+':
      value = p.value + q.value;
      break;
    case '-':
      value = p.value - q.value;
      break;
    case '*':
      value = q.value == 1 ? 0 : p.value * q.value;
      break;
    default:
      value = q.value == 1 || p.value % q.value != 0 ? 0 : p.value / q.value;
      break;
  }
  if (value < 1 || value > kLargestValue) return std::nullopt;
  return Step{fmt::format("{}{}{}={}", p.value, op, q.value, value),
              {value, fmt::format("({}{}{})", p.text, op, q.text)}};
}

constexpr std::string_view kOps = "+-*/";

// What the search over three terms writes, in order. `tries` counts pairs with an operator.
struct Found {
  size_t trace_size;  // the trace up to and with this value
  Term term;
};

std::string search_three(const std::vector<Term>& terms, int most_tries,
                         std::vector<Found>& found) {
  std::string trace;
  constexpr size_t kPairs[3][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}};
  int tries = 0;
  for (const auto& [i, j, rest] : kPairs) {
    for (const char op : kOps) {
      const std::optional<Step> first = apply(op, terms[i], terms[j]);
      if (!first) continue;
      if (tries++ == most_tries) return trace;
      trace += (tries > 1 ? ";" : "") + first->statement;
      char separator = ':';
      for (const char second_op : kOps) {
        const std::optional<Step> second = apply(second_op, first->term, terms[rest]);
        if (!second) continue;
        trace += separator + second->statement;
        separator = ',';
        const auto same = [&](const Found& f) { return f.term.value == second->term.value; };
        if (std::none_of(found.begin(), found.end(), same)) {
          found.push_back({trace.size(), second->term});
        }
      }
    }
  }
  return trace;
}

Term draw_term(Rng& rng) {
  const int64_t value = rng.range(1, 9);
  return {value, std::to_string(value)};
}

}  // namespace

Problem make_countdown(Rng& rng, int difficulty) {
  constexpr int kMostTries[] = {3, 6, 3, 5};
  while (true) {
    std::vector<Term> terms;
    std::vector<std::string> numbers;
    for (int i = 0; i < (difficulty <= 2 ? 3 : 4); ++i) {
      terms.push_back(draw_term(rng));
      numbers.push_back(terms.back().text);
    }
    Problem problem;
    if (terms.size() == 4) {
      const size_t i = rng.below(3),
                   j = static_cast<size_t>(rng.range(static_cast<int64_t>(i) + 1, 3));
      const std::optional<Step> first = apply(kOps[rng.below(4)], terms[i], terms[j]);
      if (!first) continue;
      std::vector<Term> left = {first->term};
      for (size_t k = 0; k < 4; ++k) {
        if (k != i && k != j) left.push_back(terms[k]);
      }
      terms = left;
      problem.thinking = fmt::format("{}|{},{},{}|", first->statement, left[0].value, left[1].value,
                                     left[2].value);
    }
    std::vector<Found> found;
    const std::string trace = search_three(terms, kMostTries[difficulty - 1], found);
    std::erase_if(found, [](const Found& f) { return f.term.value < 10; });
    if (found.empty()) continue;
    const Found& hit = found[rng.below(found.size())];
    problem.prompt = fmt::format("make {} from {}", hit.term.value, join(numbers, " "));
    problem.thinking += trace.substr(0, hit.trace_size);
    problem.answer = hit.term.text.substr(1, hit.term.text.size() - 2);
    return problem;
  }
}

}  // namespace fathom::synth
