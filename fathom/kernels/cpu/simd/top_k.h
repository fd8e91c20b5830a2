// The A largest of a short row, for routing.
#pragma once

#include <cstdint>

namespace fathom::simd {

// Indices of the A largest of z [E] in descending order, ties by the lower index; A <= E, no NaN.
// best [A] is scratch.
inline void top_k(const float* z, int64_t E, int64_t A, int32_t* index, float* best) {
  int64_t size = 0;
  for (int64_t e = 0; e < E; ++e) {
    if (size == A && (A == 0 || !(z[e] > best[A - 1]))) continue;
    int64_t k = size < A ? size++ : A - 1;
    for (; k > 0 && z[e] > best[k - 1]; --k) best[k] = best[k - 1], index[k] = index[k - 1];
    best[k] = z[e];
    index[k] = static_cast<int32_t>(e);
  }
}

}  // namespace fathom::simd
