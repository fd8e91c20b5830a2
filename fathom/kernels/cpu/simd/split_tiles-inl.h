// What split products share on the matrix unit: writing parts, sums of 32 x 32 outputs in the tiles
// and where they go.

#if defined(FATHOM_KERNELS_CPU_SIMD_SPLIT_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_CPU_SIMD_SPLIT_TILES_INL_H_
#undef FATHOM_KERNELS_CPU_SIMD_SPLIT_TILES_INL_H_
#else
#define FATHOM_KERNELS_CPU_SIMD_SPLIT_TILES_INL_H_
#endif

#include <algorithm>

#include "fathom/kernels/cpu/simd/gemm-inl.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

constexpr int64_t kBlock = 2 * kSplitRows;  // rows and columns that the tiles hold

using D16 = hn::Repartition<uint16_t, D>;
using D32 = hn::Repartition<uint32_t, D>;

// The columns of a vector that are there: `left` of 16, all where more are left.
HWY_INLINE V load_some(const float* p, int64_t left) {
  const D d;
  if (left >= 16) return hn::LoadU(d, p);
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(std::max<int64_t>(left, 0))), d, p);
}

HWY_INLINE V high_part(V x) {
  const D d;
  return hn::BitCast(d, hn::And(hn::BitCast(D32(), x), hn::Set(D32(), 0xFFFF0000u)));
}

// The parts of x0 and x1: each time the upper halves of both, put together by `join`.
template <class Join>
HWY_INLINE void store_parts(V x0, V x1, const Join& join, uint16_t* dst) {
  const D16 d16;
#pragma GCC unroll 3
  for (int part = 0; part < 3; ++part) {
    hn::Store(join(hn::BitCast(d16, x0), hn::BitCast(d16, x1)), d16, dst + part * kSplitPart);
    x0 = hn::Sub(x0, high_part(x0));
    x1 = hn::Sub(x1, high_part(x1));
  }
}

// 16 k each, one behind the other.
HWY_INLINE void store_row(V x0, V x1, uint16_t* dst) {
  const auto join = [](auto a, auto b) HWY_ATTR { return hn::ConcatOdd(D16(), b, a); };
  store_parts(x0, x1, join, dst);
}

HWY_INLINE void zero_tiles() {
  asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" : :);
}

HWY_INLINE void load_tiles(const float* from, int64_t ld) {
  asm volatile(
      "tileloadd (%0,%2,1), %%tmm0\n\t"
      "tileloadd 64(%0,%2,1), %%tmm1\n\t"
      "tileloadd (%1,%2,1), %%tmm2\n\t"
      "tileloadd 64(%1,%2,1), %%tmm3"
      :
      : "r"(from), "r"(from + kSplitRows * ld), "r"(ld * 4)
      : "memory");
}

HWY_INLINE void store_tiles(float* out, int64_t ld) {
  asm volatile(
      "tilestored %%tmm0, (%0,%2,1)\n\t"
      "tilestored %%tmm1, 64(%0,%2,1)\n\t"
      "tilestored %%tmm2, (%1,%2,1)\n\t"
      "tilestored %%tmm3, 64(%1,%2,1)"
      :
      : "r"(out), "r"(out + kSplitRows * ld), "r"(ld * 4)
      : "memory");
}

// The tiles 0 .. 3 += [32][32] products of two strips of A and two of B. Between products one
// operand stays: 14 loads for 24 products. After each of the kCalls products of a step the core
// does `meanwhile` while the unit works.
constexpr int64_t kCalls = 6;

template <class Meanwhile>
HWY_INLINE void sum_tiles(const uint16_t* a0, const uint16_t* a1, const uint16_t* b0,
                          const uint16_t* b1, int64_t steps, const Meanwhile& meanwhile) {
  const int64_t line = 64;
#define FM_LOAD_A(part)        \
  "tileloadd " #part           \
  "*1024(%0,%4,1), %%tmm4\n\t" \
  "tileloadd " #part "*1024(%1,%4,1), %%tmm5\n\t"
#define FM_LOAD_B(part)        \
  "tileloadd " #part           \
  "*1024(%2,%4,1), %%tmm6\n\t" \
  "tileloadd " #part "*1024(%3,%4,1), %%tmm7\n\t"
#define FM_PRODUCT                       \
  "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t" \
  "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t" \
  "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t" \
  "tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n\t"
#define FM_UNIT(instructions)                                                      \
  asm volatile(instructions                                                        \
               :                                                                   \
               : "r"(a0 + at), "r"(a1 + at), "r"(b0 + at), "r"(b1 + at), "r"(line) \
               : "memory");                                                        \
  meanwhile()
  for (int64_t at = 0; at < steps * 3 * kSplitPart; at += 3 * kSplitPart) {
    FM_UNIT(FM_LOAD_A(2) FM_LOAD_B(0) FM_PRODUCT FM_LOAD_A(1));  // low high
    FM_UNIT(FM_PRODUCT FM_LOAD_B(1));                            // middle high
    FM_UNIT(FM_PRODUCT FM_LOAD_A(0));                            // middle middle
    FM_UNIT(FM_PRODUCT FM_LOAD_B(2));                            // high middle
    FM_UNIT(FM_PRODUCT FM_LOAD_B(0));                            // high low
    FM_UNIT(FM_PRODUCT);                                         // high high
  }
#undef FM_LOAD_A
#undef FM_LOAD_B
#undef FM_PRODUCT
#undef FM_UNIT
}

// Spreads `work` over so many calls of next().
class Pace {
 public:
  Pace(int64_t work, int64_t calls) : work_(work), calls_(calls) {}
  HWY_INLINE int64_t next() {
    int64_t count = 0;
    for (due_ += work_; due_ > 0; due_ -= calls_) ++count;
    return count;
  }

 private:
  int64_t work_, calls_, due_ = 0;
};

// Where the sums go: out[rows][cols] of at most 32 each.
struct TilesOut {
  float* out = nullptr;
  int64_t ld = 0, rows = 0, cols = 0;
  bool add = false;
};

HWY_INLINE void write_tiles(const TilesOut& t) {
  if (!t.add && t.rows == kBlock && t.cols == kBlock) return store_tiles(t.out, t.ld);
  const D d;
  HWY_ALIGN float sums[kBlock][kBlock];
  store_tiles(sums[0], kBlock);
  float* out = t.out;
  for (int64_t r = 0; r < t.rows; ++r, out += t.ld) {
    for (int64_t c = 0; c < t.cols; c += 16) {
      V sum = hn::Load(d, sums[r] + c);
      if (t.add) sum = hn::Add(load_some(out + c, t.cols - c), sum);
      hn::BlendedStore(sum, hn::FirstN(d, static_cast<size_t>(t.cols - c)), d, out + c);
    }
  }
}

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
