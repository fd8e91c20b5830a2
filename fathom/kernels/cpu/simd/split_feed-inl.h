// Writers of strips (split_products.h) that work in small units, so that a core can split what it
// needs next while its matrix unit multiplies.

#if defined(FATHOM_KERNELS_CPU_SIMD_SPLIT_FEED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_CPU_SIMD_SPLIT_FEED_INL_H_
#undef FATHOM_KERNELS_CPU_SIMD_SPLIT_FEED_INL_H_
#else
#define FATHOM_KERNELS_CPU_SIMD_SPLIT_FEED_INL_H_
#endif

#include <algorithm>

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

// What both writers share: a band of kRows rows of the source crosses all strips, kUnits units in
// each; the next band is asked for meanwhile, row by row, as memory is quickest.
template <int kRows, int kUnits>
class Feed {
 public:
  Feed() = default;
  explicit Feed(const SplitArgs& s) : s_(s), stride_(split_stride(s.rows)) { begin_band(); }

  int64_t work() const {
    const int64_t bands = split_steps(s_.rows) * (kSplitStep / kRows);
    return bands * split_strips(s_.cols) * kUnits;
  }

 protected:
  bool done() const { return first_ >= split_steps(s_.rows) * kSplitStep; }
  bool whole() const { return first_ + kRows <= s_.rows && col_ + kSplitRows <= s_.cols; }
  // Vector of a row of the band, zero where nothing is.
  V load(int64_t r) const {
    return load_some(row_[r] + col_, first_ + r < s_.rows ? s_.cols - col_ : 0);
  }
  // Of the first part of the unit's step.
  uint16_t* dst() const {
    return s_.dst + col_ / kSplitRows * stride_ + first_ / kSplitStep * 3 * kSplitPart;
  }
  void next_strip() {
    col_ += kSplitRows;
    if (col_ < s_.cols) return;
    col_ = 0;
    first_ += kRows;
    begin_band();
  }

  // The next lines of the next band, as many as a unit reads.
  HWY_INLINE void request() {
    const float* at = later_[asked_row_] + asked_col_;
    const float* end = later_[asked_row_] + s_.cols;
    int row = asked_row_;
#pragma GCC unroll 8
    for (int i = 0; i < kRows / kUnits; ++i) {
      __builtin_prefetch(at);
      at += kSplitRows;
      if (at >= end) {
        row = std::min(row + 1, kRows - 1);
        at = later_[row];
        end = at + s_.cols;
      }
    }
    asked_row_ = row;
    asked_col_ = at - later_[row];
  }

  int64_t first_ = 0, col_ = 0;
  const float *row_[kRows], *later_[kRows];

 private:
  const float* row_at(int64_t i) const {
    i = std::min(i, s_.rows - 1);
    return s_.src + (s_.gather ? s_.gather[i] : i) * s_.ld;
  }
  void begin_band() {
    if (done()) return;
    asked_row_ = 0;
    asked_col_ = 0;
    for (int r = 0; r < kRows; ++r) {
      row_[r] = first_ == 0 ? row_at(r) : later_[r];
      later_[r] = row_at(first_ + kRows + r);
    }
  }

  SplitArgs s_;
  int64_t stride_ = 0, asked_col_ = 0;
  int asked_row_ = 0;
};

// Strips of A from its transpose, four rows of A in one step at a time.
class TurnedFeed : public Feed<kSplitStep, 4> {
 public:
  using Feed::Feed;
  HWY_INLINE void take(int64_t count) {
    for (; count > 0 && !done(); --count) {
      if (quarter_ == 0 && !whole()) fill_edge();
      const float* const* rows = whole() ? row_ : edge_row_;
      const int64_t at = (whole() ? col_ : 0) + 4 * quarter_;
      request();
      V x0[4], x1[4];
      four_columns(rows, at, x0);
      four_columns(rows + 16, at, x1);
      uint16_t* to = dst() + 4 * quarter_ * kSplitStep;
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) store_row(x0[q], x1[q], to + q * kSplitStep);
      quarter_ = (quarter_ + 1) % 4;
      if (quarter_ == 0) next_strip();
    }
  }

 private:
  void fill_edge() {
    for (int r = 0; r < kSplitStep; ++r) {
      edge_row_[r] = edge_ + r * kSplitRows;
      hn::StoreU(load(r), D(), edge_ + r * kSplitRows);
    }
  }

  int64_t quarter_ = 0;
  float edge_[kSplitPart];
  const float* edge_row_[kSplitStep];
};

// Strips of B, eight k at a time.
class PairsFeed : public Feed<8, 1> {
 public:
  using Feed::Feed;
  HWY_INLINE void take(int64_t count) {
    const D d;
    for (; count > 0 && !done(); --count, next_strip()) {
      request();
      uint16_t* to = dst() + first_ % kSplitStep * kSplitRows;
      if (whole()) {
#pragma GCC unroll 4
        for (int r = 0; r < 8; r += 2, to += 2 * kSplitRows) {
          store_pairs(hn::LoadU(d, row_[r] + col_), hn::LoadU(d, row_[r + 1] + col_), to);
        }
      } else {
        for (int r = 0; r < 8; r += 2, to += 2 * kSplitRows) store_pairs(load(r), load(r + 1), to);
      }
    }
  }
};

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
