// Dot products of rows with as many partial sums as a vector has lanes. Internal to the bench.
#pragma once

#include <cstdint>

namespace fathom {

// c[i * ldc + n] = dot(a[i], w[n]) for rows begin <= n < end of w[.][k].
struct DotArgs {
  const float* a = nullptr;
  int64_t m = 0, k = 0;
  const float* w = nullptr;
  float* c = nullptr;
  int64_t ldc = 0;
};
void loose_dots(const DotArgs& d, int64_t begin, int64_t end);

}  // namespace fathom
