#include "fathom/kernels/cpu/simd/split_rows.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/split_rows.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/split_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

constexpr int64_t kGroup = 256;  // rows that go through all passes together

// A block of rows in one pass.
struct Piece {
  int64_t row = 0, k = 0;
};

// Splits the rows of a piece, some steps at a time.
class Splitter {
 public:
  Splitter() = default;
  Splitter(const SplitRowsArgs& t, const Piece& p, uint16_t* dst)
      : t_(&t),
        p_(p),
        cols_(std::min(split_pass(t.k), t.k - p.k)),
        rows_(std::min(kBlock, t.m - p.row)),
        dst_(dst) {}

  int64_t work() const { return rows_ * split_steps(cols_); }

  // Rows that are not there stay as they are: nothing that is written depends on them.
  HWY_INLINE void take(int64_t count) {
    for (; count > 0 && row_ < rows_; --count) {
      const int64_t i = p_.row + row_, left = cols_ - at_;
      const float* x = t_->a + (t_->a_rows ? t_->a_rows[i] : i) * t_->lda + p_.k + at_;
      uint16_t* to = dst_ + row_ / kSplitRows * split_stride(cols_) +
                     row_ % kSplitRows * kSplitStep + at_ * 3 * kSplitRows;
      store_row(load_some(x, left), left <= 16 ? hn::Zero(D()) : load_some(x + 16, left - 16), to);
      at_ += kSplitStep;
      if (at_ < cols_) continue;
      at_ = 0;
      ++row_;
    }
  }

 private:
  const SplitRowsArgs* t_ = nullptr;
  Piece p_;
  int64_t cols_ = 0, rows_ = 0;
  uint16_t* dst_ = nullptr;
  int64_t row_ = 0, at_ = 0;
};

class RowsTask {
 public:
  explicit RowsTask(const SplitRowsArgs& t)
      : t_(t),
        pass_(split_pass(t.k)),
        group_(pass_ < t.k ? kGroup : t.m),
        ld_partial_((t.cols + kBlock - 1) / kBlock * kBlock) {
    const int64_t strips = 2 * split_stride(pass_) / 2;  // floats
    float* room =
        thread_scratch(static_cast<size_t>(2 * strips + (pass_ < t.k ? kGroup * ld_partial_ : 0)));
    split_[0] = reinterpret_cast<uint16_t*>(room);
    split_[1] = reinterpret_cast<uint16_t*>(room + strips);
    partial_ = room + 2 * strips;
  }

  void run() {
    const AmxTiles tiles;
    Splitter first(t_, {}, split_[0]);
    first.take(first.work());
    int side = 0;
    for (Piece p, next; p.row < t_.m; p = next, side ^= 1) {
      next = after(p);
      Splitter ahead = next.row < t_.m ? Splitter(t_, next, split_[side ^ 1]) : Splitter();
      multiply(p, split_[side], &ahead);
    }
  }

 private:
  Piece after(Piece p) const {
    const int64_t begin = p.row / group_ * group_, end = std::min(begin + group_, t_.m);
    p.row += kBlock;
    if (p.row < end) return p;
    p.k += pass_;
    if (p.k < t_.k) return {begin, p.k};
    return {end, 0};
  }

  void multiply(const Piece& p, const uint16_t* a, Splitter* ahead) {
    const int64_t k = std::min(pass_, t_.k - p.k), steps = split_steps(k);
    const int64_t all = split_stride(t_.k), blocks = ld_partial_ / kBlock;
    const int64_t each = (ahead->work() + blocks * steps - 1) / (blocks * steps);
    const uint16_t* a1 = t_.m - p.row > kSplitRows ? a + split_stride(k) : a;
    for (int64_t j = 0; j < t_.cols; j += kBlock) {
      const uint16_t* b = t_.b + j / kSplitRows * all + p.k * 3 * kSplitRows;
      float* partial = partial_ + (p.row % group_) * ld_partial_ + j;
      if (p.k == 0) {
        zero_tiles();
      } else {
        load_tiles(partial, ld_partial_);
      }
      sum_tiles(a, a1, b, t_.cols - j > kSplitRows ? b + all : b, steps,
                [&]() HWY_ATTR { ahead->take(each); });
      if (p.k + k < t_.k) {
        store_tiles(partial, ld_partial_);
      } else {
        write_tiles({.out = t_.c + p.row * t_.ldc + j,
                     .ld = t_.ldc,
                     .rows = std::min(kBlock, t_.m - p.row),
                     .cols = std::min(kBlock, t_.cols - j),
                     .add = t_.add});
      }
    }
    ahead->take(ahead->work());
  }

  const SplitRowsArgs& t_;
  const int64_t pass_, group_, ld_partial_;
  uint16_t* split_[2];
  float* partial_;  // sums between passes
};

void rows_times(const SplitRowsArgs& t) { RowsTask(t).run(); }

#else

void rows_times(const SplitRowsArgs&) {
  FM_CHECK(false, "this instruction set has no split products");
}

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(rows_times);

void split_rows_times(const SplitRowsArgs& args) { HWY_DYNAMIC_DISPATCH(rows_times)(args); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
