// FM_DIMS(d, q_THN, k_TR): the letters after the last underscore of a variable's own name are its
// shape. A letter is bound to a size on first sight; a later tensor that disagrees throws. See
// docs/symbols.md for the letters.
#pragma once

#include <array>
#include <string_view>

#include "fathom/tensor/view.h"

namespace fathom {

template <size_t N>
consteval std::array<std::string_view, N> split_names(std::string_view s) {
  std::array<std::string_view, N> out{};
  for (size_t i = 0; i < N; ++i) {
    const size_t comma = s.find(',');
    out[i] = s.substr(0, comma);
    while (!out[i].empty() && out[i].front() == ' ') out[i].remove_prefix(1);
    s = comma == s.npos ? std::string_view{} : s.substr(comma + 1);
  }
  return out;
}

class Dims {
 public:
  explicit Dims(const char* op) : op_(op) {}
  // -1: no tensor with that letter was bound
  int64_t operator[](char letter) const {
    const int i = letter - 'A';
    return known_ >> i & 1 ? size_[static_cast<size_t>(i)] : -1;
  }
  template <class... V>  // each converts to const View&
  void bind(const std::string_view* names, const V&... views) {
    (bind_one(*names++, views), ...);
  }

 private:
  void bind_one(std::string_view name, const View& v);
  const char* op_;
  uint64_t known_ = 0;            // bit i: size_[i] is set
  std::array<int64_t, 58> size_;  // 'A'..'z'
};

#define FM_NARG_(a, b, c, d, e, f, g, h, N, ...) N
#define FM_NARG(...) FM_NARG_(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1)
#define FM_DIMS(d, ...)                                                                         \
  do {                                                                                          \
    static constexpr auto fm_names = ::fathom::split_names<FM_NARG(__VA_ARGS__)>(#__VA_ARGS__); \
    (d).bind(fm_names.data(), __VA_ARGS__);                                                     \
  } while (0)

}  // namespace fathom
