// "sort 47,12,93" and "sort d b c": insertion sort. A step names the next element and shows the
// sorted list so far:
//   47>47;12>12,47;93>12,47,93         d > d ; b > b d ; c > b c d
#include <algorithm>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

struct Separators {
  std::string_view item, named, step;
};

template <class T, class Text>
Problem insertion_sort(const std::vector<T>& values, Text text, const Separators& separators) {
  const auto list = [&](const std::vector<T>& items) {
    std::vector<std::string> parts;
    for (const T& item : items) parts.push_back(text(item));
    return join(parts, separators.item);
  };
  Problem problem;
  problem.prompt = "sort " + list(values);
  std::vector<T> sorted;
  for (const T& value : values) {
    if (!sorted.empty()) problem.thinking += separators.step;
    sorted.insert(std::upper_bound(sorted.begin(), sorted.end(), value), value);
    problem.thinking += text(value) + std::string(separators.named) + list(sorted);
  }
  problem.answer = list(sorted);
  return problem;
}

}  // namespace

Problem make_sort_numbers(Rng& rng, int difficulty) {
  struct Size {
    int count, limit;
  };
  constexpr Size kSizes[] = {{4, 10}, {6, 10}, {4, 100}, {5, 100}, {6, 100}, {7, 100}};
  const Size size = kSizes[difficulty - 1];
  const std::vector<int64_t> values = size.limit == 10 ? draw_distinct(rng, size.count, 10) : [&] {
    std::vector<int64_t> two_digits = draw_distinct(rng, size.count, 90);
    for (int64_t& value : two_digits) value += 10;
    return two_digits;
  }();
  return insertion_sort(values, [](int64_t v) { return std::to_string(v); }, {",", ">", ";"});
}

Problem make_sort_letters(Rng& rng, int difficulty) {
  std::vector<char> letters;
  for (const int64_t i : draw_distinct(rng, difficulty + 2, 26)) {
    letters.push_back(static_cast<char>('a' + i));
  }
  return insertion_sort(letters, [](char c) { return std::string(1, c); }, {" ", " > ", " ; "});
}

}  // namespace fathom::synth
