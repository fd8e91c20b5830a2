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

// Splits the rows of a piece, some steps at a time, and asks for rows that follow.
class Splitter {
 public:
  Splitter() = default;
  Splitter(const SplitRowsArgs& t, const Piece& p, uint16_t* dst)
      : t_(&t),
        p_(p),
        cols_(std::min(split_pass(t.k), t.k - p.k)),
        rows_(std::min(kBlock, t.m - p.row)),
        dst_(dst) {
    begin_row();
  }

  int64_t work() const { return rows_ * split_steps(cols_); }

  // Rows that are not there stay as they are: nothing that is written depends on them.
  HWY_INLINE void take(int64_t count) {
    const D d;
    while (count > 0 && row_ < rows_) {
      for (; count > 0 && left_ >= kSplitStep; --count, left_ -= kSplitStep) {
        __builtin_prefetch(later_);
        __builtin_prefetch(later_ + 16);
        store_row(hn::LoadU(d, x_), hn::LoadU(d, x_ + 16), to_);
        x_ += kSplitStep;
        later_ += kSplitStep;
        to_ += 3 * kSplitPart;
      }
      if (count > 0 && left_ > 0) {
        store_row(load_some(x_, left_), left_ <= 16 ? hn::Zero(d) : load_some(x_ + 16, left_ - 16),
                  to_);
        left_ = 0;
        --count;
      }
      if (left_ > 0) return;
      ++row_;
      begin_row();
    }
  }

 private:
  const float* row_at(int64_t i) const {
    return t_->a + (t_->a_rows ? t_->a_rows[i] : i) * t_->lda + p_.k;
  }
  void begin_row() {
    if (row_ >= rows_) return;
    constexpr int64_t kLater = 8;
    x_ = row_at(p_.row + row_);
    later_ = row_at(std::min(p_.row + row_ + kLater, t_->m - 1));
    to_ = dst_ + row_ / kSplitRows * split_stride(cols_) + row_ % kSplitRows * kSplitStep;
    left_ = cols_;
  }

  const SplitRowsArgs* t_ = nullptr;
  Piece p_;
  int64_t cols_ = 0, rows_ = 0, row_ = 0;
  uint16_t *dst_ = nullptr, *to_ = nullptr;
  const float *x_ = nullptr, *later_ = nullptr;
  int64_t left_ = 0;  // of the row
};

enum class Use { kWrite, kRead };  // at once; after a while, from the second-level cache

// Asks for runs of memory, some lines at a time, before they are used.
template <Use kUse>
class Request {
 public:
  Request() = default;
  Request(const void* at, int64_t run_bytes, int64_t apart_bytes, int64_t runs)
      : at_(static_cast<const char*>(at)),
        run_(run_bytes),
        gap_(apart_bytes - run_bytes),
        runs_(runs),
        left_(run_bytes) {}
  int64_t lines() const { return runs_ * (run_ / kLine); }
  HWY_INLINE void take(int64_t count) {
    for (; count > 0 && runs_ > 0; --count) {
      if (kUse == Use::kWrite)
        asm volatile("prefetchw (%0)" : : "r"(at_));
      else
        __builtin_prefetch(at_, 0, 2);
      at_ += kLine;
      left_ -= kLine;
      if (left_ > 0) continue;
      left_ = run_;
      at_ += gap_;
      --runs_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  const char* at_ = nullptr;
  int64_t run_ = 0, gap_ = 0, runs_ = 0, left_ = 0;
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
      multiply(p, next, split_[side], &ahead);
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

  // The block of C that is written after those of column j, if it is.
  Request<Use::kWrite> request_after(const Piece& p, const Piece& next, int64_t j) const {
    const bool same = j + kBlock < t_.cols;
    const Piece& of = same ? p : next;
    if (of.k + pass_ < t_.k) return {};
    const int64_t rows = std::min(kBlock, t_.m - of.row);
    return {t_.c + of.row * t_.ldc + (same ? j + kBlock : 0), kBlock * 4, t_.ldc * 4, rows};
  }

  // What the pass after that of p reads of B, where B takes several passes.
  void plan_requests(const Piece& p) {
    const int64_t begin = p.row, end = std::min(begin + group_, t_.m);
    const bool over = p.k + pass_ >= t_.k;
    if (pass_ == t_.k || (over && end == t_.m)) {
      next_b_ = {};
      return;
    }
    const int64_t k = over ? 0 : p.k + pass_, steps = split_steps(std::min(pass_, t_.k - k));
    next_b_ = {t_.b + k * 3 * kSplitRows, steps * 3 * kSplitPart * 2, split_stride(t_.k) * 2,
               split_strips(t_.cols)};
    const int64_t calls = kCalls * split_steps(std::min(pass_, t_.k - p.k)) *
                          (ld_partial_ / kBlock) * ((end - begin + kBlock - 1) / kBlock);
    asking_b_ = Pace(next_b_.lines(), calls);
  }

  void multiply(const Piece& p, const Piece& next, const uint16_t* a, Splitter* ahead) {
    const int64_t k = std::min(pass_, t_.k - p.k), steps = split_steps(k);
    const int64_t all = split_stride(t_.k), blocks = ld_partial_ / kBlock;
    Pace splitting(ahead->work(), kCalls * blocks * steps);
    Pace asking(2 * kBlock, kCalls * steps);
    if (p.row % group_ == 0) plan_requests(p);
    const uint16_t* a1 = t_.m - p.row > kSplitRows ? a + split_stride(k) : a;
    for (int64_t j = 0; j < t_.cols; j += kBlock) {
      const uint16_t* b = t_.b + j / kSplitRows * all + p.k * 3 * kSplitRows;
      float* partial = partial_ + (p.row % group_) * ld_partial_ + j;
      if (p.k == 0) {
        zero_tiles();
      } else {
        load_tiles(partial, ld_partial_);
      }
      Request<Use::kWrite> soon = request_after(p, next, j);
      sum_tiles(
          a, a1, b, t_.cols - j > kSplitRows ? b + all : b,
          steps, [&]() HWY_ATTR __attribute__((always_inline)) {
            ahead->take(splitting.next());
            soon.take(asking.next());
            next_b_.take(asking_b_.next());
          });
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
  const int64_t pass_, group_, ld_partial_;  // group_: rows that take a pass together
  uint16_t* split_[2];
  float* partial_;  // sums between passes
  Request<Use::kRead> next_b_;
  Pace asking_b_{0, 1};
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
