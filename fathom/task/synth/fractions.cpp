// "2/3+1/4=?", with +, - or *: numerators over the product of the denominators,
//   2*4=08;1*3=03;08+03=11;3*4=12
// and the answer as it comes, 11/12. Any other text of this value is as right.
#include <fmt/core.h>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {

Problem make_fractions(Rng& rng, int difficulty) {
  const int64_t most = 3 + 2 * difficulty;
  int64_t a = 0, b = 0, c = 0, d = 0, numerator = 0;
  char op = '+';
  do {
    a = rng.range(1, most);
    b = rng.range(2, most);
    c = rng.range(1, most);
    d = rng.range(2, most);
    op = "+-*"[rng.below(3)];
    numerator = op == '*' ? a * c : op == '+' ? a * d + c * b : a * d - c * b;
  } while (numerator == 0);
  Problem problem;
  problem.prompt = fmt::format("{}/{}{}{}/{}=?", a, b, op, c, d);
  problem.thinking = op == '*' ? fmt::format("{}*{}={:02}", a, c, numerator)
                               : fmt::format("{}*{}={:02};{}*{}={:02};{:02}{}{:02}={:02}", a, d,
                                             a * d, c, b, c * b, a * d, op, c * b, numerator);
  problem.thinking += fmt::format(";{}*{}={:02}", b, d, b * d);
  problem.answer = fmt::format("{}/{}", numerator, b * d);
  return problem;
}

}  // namespace fathom::synth
