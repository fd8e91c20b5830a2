// "gcd 48,18": repeated subtraction of the smaller number until nothing is left.
#include <fmt/core.h>

#include <algorithm>
#include <numeric>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {

Problem make_gcd(Rng& rng, int difficulty) {
  constexpr int64_t kLargest[] = {20, 50, 99, 200};
  constexpr int kMostSteps = 8;
  while (true) {
    const int64_t factor = rng.range(1, 12);  // so that the answer is not mostly 1
    const int64_t limit = std::max<int64_t>(kLargest[difficulty - 1] / factor, 2);
    int64_t a = factor * rng.range(1, limit), b = factor * rng.range(1, limit);
    if (std::max(a, b) > kLargest[difficulty - 1]) continue;
    Problem problem;
    problem.prompt = fmt::format("gcd {},{}", a, b);
    problem.answer = std::to_string(std::gcd(a, b));
    int steps = 0;
    while (a != 0 && b != 0) {
      if (a < b) std::swap(a, b);
      problem.thinking += fmt::format("{}{}-{}={}", steps > 0 ? ";" : "", a, b, a - b);
      a -= b;
      ++steps;
    }
    if (steps >= 2 && steps <= kMostSteps) return problem;
  }
}

}  // namespace fathom::synth
