#include "fathom/kernels/bench_loose_dots.h"

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/bench_loose_dots.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

constexpr int kRowsOfW = 4;

// kRowsOfW rows of w from n on against row i of a.
HWY_INLINE void dots(const DotArgs& d, int64_t i, int64_t n) {
  const D tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const float* a = d.a + i * d.k;
  const float* w = d.w + n * d.k;
  V even[kRowsOfW], odd[kRowsOfW];
  for (int r = 0; r < kRowsOfW; ++r) even[r] = odd[r] = hn::Zero(tag);
  int64_t k = 0;
  for (; k + 2 * lanes <= d.k; k += 2 * lanes) {
    const V x = hn::LoadU(tag, a + k), y = hn::LoadU(tag, a + k + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRowsOfW; ++r) {
      even[r] = hn::MulAdd(x, hn::LoadU(tag, w + r * d.k + k), even[r]);
      odd[r] = hn::MulAdd(y, hn::LoadU(tag, w + r * d.k + k + lanes), odd[r]);
    }
  }
  for (int r = 0; r < kRowsOfW; ++r) {
    float sum = hn::GetLane(hn::SumOfLanes(tag, hn::Add(even[r], odd[r])));
    for (int64_t q = k; q < d.k; ++q) sum += a[q] * w[r * d.k + q];
    d.c[i * d.ldc + n + r] = sum;
  }
}

void dot_rows(const DotArgs& d, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; n += kRowsOfW) {
    const int64_t first = n + kRowsOfW <= end ? n : end - kRowsOfW;
    for (int64_t i = 0; i < d.m; ++i) dots(d, i, first);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom {

HWY_EXPORT(dot_rows);

void loose_dots(const DotArgs& d, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(dot_rows)(d, begin, end);
}

}  // namespace fathom
#endif
