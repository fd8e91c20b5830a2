// "47*86=?": one row of digit products per digit of the second factor, last digit first, then the
// sum of the rows:
//   7*6+0=42>2;4*6+4=28>282|7*8+0=56>6;4*8+5=37>376|0282+3760|0+2+0=02>2;...
#include <fmt/core.h>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

// "a*d+carry=pp>result so far" for each digit a of `factor` from the right; the row goes to
// `product`.
std::string digit_row(const std::string& factor, int digit, std::string& product) {
  std::string trace;
  int carry = 0;
  for (size_t i = factor.size(); i-- > 0;) {
    const int a = factor[i] - '0';
    const int value = a * digit + carry;
    if (!trace.empty()) trace += ';';
    product.insert(0, std::to_string(i > 0 ? value % 10 : value));
    trace += fmt::format("{}*{}+{}={:02}>{}", a, digit, carry, value, product);
    carry = value / 10;
  }
  return trace;
}

std::string draw_number(Rng& rng, int digits, int lowest_inner) {
  std::string text = std::to_string(rng.range(1, 9));
  for (int i = 1; i < digits; ++i) text += std::to_string(rng.range(lowest_inner, 9));
  return text;
}

}  // namespace

Problem make_multiplication(Rng& rng, int difficulty) {
  struct Size {
    int left, right;  // digits
  };
  constexpr Size kSizes[] = {{2, 1}, {3, 1}, {2, 2}, {3, 2}, {3, 3}};
  const Size size = kSizes[difficulty - 1];
  // No zero in the right factor: each row then has a leading digit that is not zero.
  const std::string left = draw_number(rng, size.left, 0), right = draw_number(rng, size.right, 1);

  Problem problem;
  problem.prompt = left + '*' + right + "=?";
  std::vector<std::string> rows;
  for (size_t i = right.size(); i-- > 0;) {
    std::string product;
    if (!rows.empty()) problem.thinking += '|';
    problem.thinking += digit_row(left, right[i] - '0', product);
    rows.push_back(product + std::string(rows.size(), '0'));
  }
  if (rows.size() > 1) {
    size_t width = 0;
    for (const std::string& row : rows) width = std::max(width, row.size());
    for (std::string& row : rows) row.insert(0, width - row.size(), '0');
    problem.thinking += '|' + join(rows, "+") + '|' + add_columns(rows);
  }
  problem.answer = std::to_string(std::stoll(left) * std::stoll(right));
  return problem;
}

}  // namespace fathom::synth
