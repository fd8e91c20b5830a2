#include "fathom/kernels/cpu/simd/split_products.h"

#include <algorithm>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/split_products.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/split_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

// 16 columns of two k, side by side.
HWY_INLINE void store_pairs(V x0, V x1, uint16_t* dst) {
  const auto join = [](auto a, auto b) HWY_ATTR {
    const auto low = hn::ShiftRight<16>(hn::BitCast(D32(), a));
    return hn::OddEven(b, hn::BitCast(D16(), low));
  };
  store_parts(x0, x1, join, dst);
}

const float* row_at(const SplitArgs& s, int64_t i) {
  return s.src + (s.gather ? s.gather[i] : i) * s.ld;
}

void split_rows(const SplitArgs& s) {
  const int64_t steps = split_steps(s.cols), stride = split_stride(s.cols);
  for (int64_t i = 0; i < split_strips(s.rows) * kSplitRows; ++i) {
    uint16_t* dst = s.dst + i / kSplitRows * stride + i % kSplitRows * kSplitStep;
    const float* row = i < s.rows ? row_at(s, i) : nullptr;
    for (int64_t step = 0; step < steps; ++step, dst += 3 * kSplitPart) {
      const int64_t k = step * kSplitStep, left = row ? s.cols - k : 0;
      const float* at = row ? row + k : s.src;
      store_row(load_some(at, left), left <= 16 ? hn::Zero(D()) : load_some(at + 16, left - 16),
                dst);
    }
  }
}

void split_columns(const SplitArgs& s) {
  const int64_t steps = split_steps(s.rows), stride = split_stride(s.rows);
  for (int64_t i = 0; i < steps * kSplitStep; i += 2) {
    const float* row0 = i < s.rows ? row_at(s, i) : s.src;
    const float* row1 = i + 1 < s.rows ? row_at(s, i + 1) : s.src;
    const int64_t cols0 = i < s.rows ? s.cols : 0, cols1 = i + 1 < s.rows ? s.cols : 0;
    uint16_t* dst = s.dst + i / kSplitStep * 3 * kSplitPart + i % kSplitStep * kSplitRows;
    for (int64_t c = 0; c < s.cols; c += kSplitRows, dst += stride)
      store_pairs(load_some(row0 + c, cols0 - c), load_some(row1 + c, cols1 - c), dst);
  }
}

// Four k of the rows p[0], p[4], p[8] and p[12].
HWY_INLINE V every_fourth_row(const float* const* p, int64_t at) {
  const hn::FixedTag<float, 4> d4;
  const hn::FixedTag<float, 8> d8;
  const auto lower = hn::Combine(d8, hn::LoadU(d4, p[4] + at), hn::LoadU(d4, p[0] + at));
  const auto upper = hn::Combine(d8, hn::LoadU(d4, p[12] + at), hn::LoadU(d4, p[8] + at));
  return hn::Combine(D(), upper, lower);
}

// out[c] = column at + c of the 16 rows
HWY_INLINE void four_columns(const float* const* p, int64_t at, V (&out)[4]) {
  const D d;
  const hn::RepartitionToWide<D> d64;
  V v[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) v[r] = every_fourth_row(p + r, at);
  const auto ab_lo = hn::BitCast(d64, hn::InterleaveLower(d, v[0], v[1]));
  const auto cd_lo = hn::BitCast(d64, hn::InterleaveLower(d, v[2], v[3]));
  const auto ab_hi = hn::BitCast(d64, hn::InterleaveUpper(d, v[0], v[1]));
  const auto cd_hi = hn::BitCast(d64, hn::InterleaveUpper(d, v[2], v[3]));
  out[0] = hn::BitCast(d, hn::InterleaveLower(d64, ab_lo, cd_lo));
  out[1] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_lo, cd_lo));
  out[2] = hn::BitCast(d, hn::InterleaveLower(d64, ab_hi, cd_hi));
  out[3] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_hi, cd_hi));
}

void split_turned(const SplitArgs& s) {
  const int64_t steps = split_steps(s.rows), stride = split_stride(s.rows);
  HWY_ALIGN float edge[kSplitStep][kSplitRows];
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t first = step * kSplitStep, height = std::min(kSplitStep, s.rows - first);
    uint16_t* dst = s.dst + step * 3 * kSplitPart;
    for (int64_t c = 0; c < s.cols; c += kSplitRows, dst += stride) {
      const float* p[kSplitStep];
      for (int64_t r = 0; r < height; ++r) p[r] = row_at(s, first + r) + c;
      if (height < kSplitStep || s.cols - c < kSplitRows) {
        for (int64_t r = 0; r < kSplitStep; ++r) {
          hn::Store(r < height ? load_some(p[r], s.cols - c) : hn::Zero(D()), D(), edge[r]);
          p[r] = edge[r];
        }
      }
#pragma GCC unroll 4
      for (int64_t at = 0; at < kSplitRows; at += 4) {
        V x0[4], x1[4];
        four_columns(p, at, x0);
        four_columns(p + 16, at, x1);
#pragma GCC unroll 4
        for (int64_t q = 0; q < 4; ++q) store_row(x0[q], x1[q], dst + (at + q) * kSplitStep);
      }
    }
  }
}

void multiply(const SplitProductArgs& t) {
  const AmxTiles tiles;
  const int64_t stride = split_stride(t.k), steps = split_steps(t.k);
  for (int64_t i = 0; i < t.rows; i += kBlock) {
    const uint16_t* a = t.a + i / kSplitRows * stride;
    const int64_t rows = std::min(kBlock, t.rows - i);
    for (int64_t j = 0; j < t.cols; j += kBlock) {
      const uint16_t* b = t.b + j / kSplitRows * stride;
      const int64_t cols = std::min(kBlock, t.cols - j);
      // Where there is no second strip, the first takes its place.
      zero_tiles();
      sum_tiles(a, rows > kSplitRows ? a + stride : a, b, cols > kSplitRows ? b + stride : b, steps,
                [] {});
      write_tiles({.out = t.out + i * t.ld_out + j,
                   .ld = t.ld_out,
                   .rows = rows,
                   .cols = cols,
                   .add = t.add});
    }
  }
}

const SplitTable* make_split_table() {
  static constexpr SplitTable kTable = {
      .rows = split_rows, .turned = split_turned, .columns = split_columns, .multiply = multiply};
  return amx_bf16() ? &kTable : nullptr;
}

#else

const SplitTable* make_split_table() { return nullptr; }

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_split_table);

const SplitTable* split_table() { return HWY_DYNAMIC_DISPATCH(make_split_table)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
