#include "fathom/kernels/cpu/ref/split_products.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fathom::ref {
namespace {

constexpr int64_t kStep = 32;

enum Part { kHi, kMid, kLo };

// The matrix unit takes and gives zero for numbers below the normal ones.
float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float top_16_bits(float x) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0xFFFF0000u;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

float part_of(float x, Part part) {
  const float hi = top_16_bits(x);
  if (part == kHi) return flushed(hi);
  const float mid = top_16_bits(x - hi);
  return flushed(part == kMid ? mid : top_16_bits(x - hi - mid));
}

}  // namespace

float split_dot(const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t k) {
  constexpr Part kProducts[6][2] = {{kLo, kHi},  {kMid, kHi}, {kMid, kMid},
                                    {kHi, kMid}, {kHi, kLo},  {kHi, kHi}};
  float sum = 0;
  for (int64_t i0 = 0; i0 < k; i0 += kStep) {
    for (const auto& [part_a, part_b] : kProducts) {
      float even_odd[2] = {0, 0};
      for (int64_t i = i0; i < std::min(i0 + kStep, k); ++i) {
        float& chain = even_odd[i % 2];
        chain = flushed(
            std::fma(part_of(a[i * a_step], part_a), part_of(b[i * b_step], part_b), chain));
      }
      sum = flushed(sum + flushed(even_odd[0] + even_odd[1]));
    }
  }
  return sum;
}

}  // namespace fathom::ref
