// "47+86=?" with the columns from the right in the thinking.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/task/synth/generators.h"

namespace fathom::synth {

std::string add_columns(const std::vector<std::string>& rows) {
  FM_CHECK(rows.size() >= 2, "{} rows", rows.size());
  const size_t width = rows[0].size();
  std::string trace, result;
  int carry = 0;
  for (size_t column = 0; column < width; ++column) {
    const auto digit = [&](size_t row) { return rows[row][width - 1 - column] - '0'; };
    int sum = carry + digit(0) + digit(1);
    if (column > 0) trace += ';';
    trace += fmt::format("{}+{}+{}={:02}", carry, digit(0), digit(1), sum);
    for (size_t row = 2; row < rows.size(); ++row) {
      sum += digit(row);
      trace += fmt::format("+{}={:02}", digit(row), sum);
    }
    carry = sum / 10;
    result.insert(0, std::to_string(column + 1 < width ? sum % 10 : sum));
    trace += '>' + result;
  }
  return trace;
}

Problem make_addition(Rng& rng, int difficulty) {
  struct Size {
    int operands, digits;
  };
  constexpr Size kSizes[] = {{2, 2}, {2, 3}, {3, 2}, {3, 3}, {4, 3}, {4, 4}};
  const Size size = kSizes[difficulty - 1];
  int64_t low = 1;
  for (int i = 1; i < size.digits; ++i) low *= 10;
  std::vector<std::string> rows;
  int64_t sum = 0;
  for (int i = 0; i < size.operands; ++i) {
    const int64_t value = rng.range(low, low * 10 - 1);
    sum += value;
    rows.push_back(std::to_string(value));
  }
  Problem problem;
  problem.prompt = join(rows, "+") + "=?";
  problem.thinking = add_columns(rows);
  problem.answer = std::to_string(sum);
  return problem;
}

}  // namespace fathom::synth
