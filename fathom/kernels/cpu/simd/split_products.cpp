#include "fathom/kernels/cpu/simd/split_products.h"

#include <algorithm>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/split_products.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/split_feed-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

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
  PairsFeed feed(s);
  feed.take(feed.work());
}

void split_turned(const SplitArgs& s) {
  TurnedFeed feed(s);
  feed.take(feed.work());
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
