// Vector type, exact multiply-add and the write-back that all GEMM tiles share, per instruction
// set.

#if defined(FATHOM_KERNELS_CPU_SIMD_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_CPU_SIMD_GEMM_INL_H_
#undef FATHOM_KERNELS_CPU_SIMD_GEMM_INL_H_
#else
#define FATHOM_KERNELS_CPU_SIMD_GEMM_INL_H_
#endif

#include <cmath>

#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int kLanes = HWY_LANES(float) < 16 ? HWY_LANES(float) : 16;
constexpr int kPerPanel = 16 / kLanes;  // vectors per panel row

HWY_INLINE V fused(V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  return hn::Set(D(), std::fma(hn::GetLane(a), hn::GetLane(b), hn::GetLane(c)));
#endif
}

// Writes acc[rows][panels * kPerPanel] under the rules of TileArgs.
template <int kRows, int kVecs>
HWY_INLINE void finish(const TileArgs& t, V (&acc)[kRows][kVecs]) {
  const D d;
  if (t.scale) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVecs; ++j) {
        const V before = t.prev ? hn::LoadU(d, t.prev + i * t.ld_prev + j * kLanes) : hn::Zero(d);
        acc[i][j] = fused(acc[i][j], hn::LoadU(d, t.scale + j * kLanes), before);
      }
    }
  }
  const int64_t ld = t.ld_out;
  if (t.cols < kVecs * kLanes) {
    HWY_ALIGN float tmp[kRows][kVecs * kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVecs; ++j) hn::Store(acc[i][j], d, tmp[i] + j * kLanes);
    }
    for (int i = 0; i < kRows; ++i) {
      for (int64_t q = 0; q < t.cols; ++q) {
        t.out[i * ld + q] = t.c_old ? t.c_old[i * ld + q] + tmp[i][q] : tmp[i][q];
      }
    }
  } else if (t.c_old) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVecs; ++j) {
        const V before = hn::LoadU(d, t.c_old + i * ld + j * kLanes);
        hn::StoreU(hn::Add(before, acc[i][j]), d, t.out + i * ld + j * kLanes);
      }
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVecs; ++j) hn::StoreU(acc[i][j], d, t.out + i * ld + j * kLanes);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
