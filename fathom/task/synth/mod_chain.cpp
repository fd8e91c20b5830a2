// "mod 10: 7,+5,*3,-4=?": operators applied left to right, each result reduced. The thinking writes
// plain sums, which small models learn far sooner than modular ones; a subtraction first adds the
// modulus:
//   mod 10   7+5=12;2*3=06;16-4=12            two digits, the last one goes on
//   mod 11   7+5=12>1;1*3=3>3;14-4=10>10      the remainder behind ">" goes on
// Factors are coprime to the modulus, so that no step forgets what came before it and the answer
// cannot be guessed from the end of the chain.
#include <fmt/core.h>

#include <numeric>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

Problem make_chain(Rng& rng, int64_t modulus, int num_steps) {
  int64_t value = rng.range(0, modulus - 1);
  Problem problem;
  problem.prompt = fmt::format("mod {}: {}", modulus, value);
  for (int i = 0; i < num_steps; ++i) {
    const char op = "+-*"[rng.below(3)];
    int64_t operand = rng.range(1, modulus - 1);
    while (op == '*' && (operand == 1 || std::gcd(operand, modulus) != 1)) {
      operand = rng.range(2, modulus - 1);
    }
    const int64_t left = op == '-' ? value + modulus : value;
    const int64_t raw = op == '+' ? left + operand : op == '-' ? left - operand : left * operand;
    const int64_t result = raw % modulus;
    problem.prompt += fmt::format(",{}{}", op, operand);
    problem.thinking += fmt::format("{}{}{}{}=", i > 0 ? ";" : "", left, op, operand);
    problem.thinking +=
        modulus == 10 ? fmt::format("{:02}", raw) : fmt::format("{}>{}", raw, result);
    value = result;
  }
  problem.prompt += "=?";
  problem.answer = std::to_string(value);
  return problem;
}

}  // namespace

Problem make_mod10_chain(Rng& rng, int difficulty) { return make_chain(rng, 10, difficulty + 1); }

Problem make_mod_chain(Rng& rng, int difficulty) {
  constexpr int64_t kModuli[] = {7, 11, 13};
  return make_chain(rng, kModuli[rng.below(3)], difficulty + 1);
}

}  // namespace fathom::synth
