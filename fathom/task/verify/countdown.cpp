// Countdown: "make 24 from 7 3 5" against an expression. Integer arithmetic, divisions must be
// exact.
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "fathom/task/verify/answer.h"

namespace fathom {
namespace {

constexpr int64_t kLargest =
    1'000'000'000;            // no intermediate value of an honest expression comes near
constexpr int kDeepest = 32;  // parentheses

// Recursive descent over + - * / and parentheses; collects the numbers it meets.
class Expression {
 public:
  explicit Expression(std::string_view text) : text_(text) {}

  std::optional<int64_t> value(std::vector<int64_t>& numbers) {
    numbers_ = &numbers;
    const std::optional<int64_t> result = sum(0);
    skip_blanks();
    return at_ == text_.size() ? result : std::nullopt;
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  static std::optional<int64_t> bounded(int64_t value) {
    if (value > kLargest || value < -kLargest) return std::nullopt;
    return value;
  }

  std::optional<int64_t> sum(int depth) {
    std::optional<int64_t> left = product(depth);
    while (left) {
      const bool plus = take('+');
      if (!plus && !take('-')) break;
      const std::optional<int64_t> right = product(depth);
      if (!right) return std::nullopt;
      left = bounded(plus ? *left + *right : *left - *right);
    }
    return left;
  }
  std::optional<int64_t> product(int depth) {
    std::optional<int64_t> left = atom(depth);
    while (left) {
      const bool times = take('*');
      if (!times && !take('/')) break;
      const std::optional<int64_t> right = atom(depth);
      if (!right || (!times && (*right == 0 || *left % *right != 0))) return std::nullopt;
      left = bounded(times ? *left * *right : *left / *right);
    }
    return left;
  }
  std::optional<int64_t> atom(int depth) {
    if (take('(')) {
      if (depth == kDeepest) return std::nullopt;
      const std::optional<int64_t> inner = sum(depth + 1);
      return take(')') ? inner : std::nullopt;
    }
    skip_blanks();
    int64_t number = 0;
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + text_.size();
    if (begin == end || *begin < '0' || *begin > '9') return std::nullopt;
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (error != std::errc() || number > kLargest) return std::nullopt;
    at_ += static_cast<size_t>(stop - begin);
    numbers_->push_back(number);
    return number;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<int64_t>* numbers_ = nullptr;
};

// The numbers in `text` between anything else.
std::vector<int64_t> numbers_in(std::string_view text) {
  std::vector<int64_t> numbers;
  const char* end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(p, end, number);
    if (error == std::errc()) numbers.push_back(number);
    p = error == std::errc::invalid_argument ? p + 1 : stop;
  }
  return numbers;
}

}  // namespace

bool countdown_correct(std::string_view prompt, std::string_view answer) {
  std::vector<int64_t> given = numbers_in(prompt);  // the target comes first
  if (given.size() < 2) return false;
  const int64_t target = given[0];
  given.erase(given.begin());
  std::vector<int64_t> used;
  const std::optional<int64_t> value = Expression(answer).value(used);
  if (!value || *value != target) return false;
  std::sort(given.begin(), given.end());
  std::sort(used.begin(), used.end());
  return std::includes(given.begin(), given.end(), used.begin(), used.end());
}

}  // namespace fathom
