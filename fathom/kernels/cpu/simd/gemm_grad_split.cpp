// dW = dy^T x with dy in strips of A and x in strips of B. A task is a block of dW. For each chunk
// of rows the narrower operand's strips stay in the second-level cache and the other's come in
// pieces; what is needed next is split while the unit multiplies.
#include "fathom/kernels/cpu/simd/gemm_grad_split.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/gemm_grad_split.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/split_feed-inl.h"

#ifndef FATHOM_KERNELS_CPU_SIMD_GEMM_GRAD_SPLIT_CPP_
#define FATHOM_KERNELS_CPU_SIMD_GEMM_GRAD_SPLIT_CPP_
namespace fathom::simd {

// A block of dW.
struct SplitGrad {
  SplitArgs dy, x;  // dst is still null
  float* dw = nullptr;
  int64_t ldw = 0;
  bool add = false;

  int64_t m() const { return dy.rows; }
  bool dy_stays() const { return dy.cols < x.cols; }
};

// Some columns of some rows.
inline SplitArgs part(const SplitArgs& s, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  return {.src = s.src + (s.gather ? 0 : row * s.ld) + col,
          .ld = s.ld,
          .gather = s.gather ? s.gather + row : nullptr,
          .rows = rows,
          .cols = cols};
}

}  // namespace fathom::simd
#endif

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

constexpr int64_t kPieceCols = 64;  // columns of the operand that moves, split at a time

constexpr int64_t blocks_of(int64_t cols) { return (cols + kBlock - 1) / kBlock; }

// Adds the sums of a block of 32 x 32 to dW while the next block is multiplied, and asks for that
// one's place.
class SumWriter {
 public:
  // The block that is multiplied now.
  void begin(const TilesOut& to) {
    now_ = to;
    asked_ = 0;
  }
  // Its sums are in the tiles.
  void end() {
    take(kBlock);
    store_tiles(sums_[0], kBlock);
    to_ = now_;
    row_ = 0;
  }
  HWY_INLINE void take(int64_t rows) {
    const D d;
    for (; rows > 0; --rows) {
      if (asked_ < now_.rows) {
        const float* at = now_.out + asked_++ * now_.ld;
        asm volatile("prefetchw (%0)\n\tprefetchw 64(%0)" : : "r"(at));
      }
      if (row_ >= to_.rows) continue;
      float* out = to_.out + row_ * to_.ld;
      for (int64_t c = 0; c < to_.cols; c += 16) {
        V sum = hn::Load(d, sums_[row_] + c);
        if (to_.add) sum = hn::Add(load_some(out + c, to_.cols - c), sum);
        hn::BlendedStore(sum, hn::FirstN(d, static_cast<size_t>(to_.cols - c)), d, out + c);
      }
      ++row_;
    }
  }

 private:
  TilesOut now_, to_;
  int64_t asked_ = 0, row_ = 0;
  HWY_ALIGN float sums_[kBlock][kBlock];
};

class GradTask {
 public:
  explicit GradTask(const SplitGrad& g)
      : g_(g), chunk_(std::min(kGradChunk, g.m())), dy_stays_(g.dy_stays()) {
    const int64_t kept = split_strips(stays().cols) * split_stride(chunk_);
    const int64_t moved = split_strips(kPieceCols) * split_stride(chunk_);
    auto* room = reinterpret_cast<uint16_t*>(thread_scratch(static_cast<size_t>(kept + moved)));
    staying_[0] = room;
    staying_[1] = room + kept;
    moving_[0] = room + 2 * kept;
    moving_[1] = room + 2 * kept + moved;
  }

  void run() {
    const AmxTiles tiles;
    Strips now;
    Feeds first = feeds({}, &now);
    first.dy.take(first.dy.work());
    first.x.take(first.x.work());
    for (Piece p, next; p.row < g_.m(); p = next) {
      next = after(p);
      Strips then = now;
      Feeds ahead = next.row < g_.m() ? feeds(next, &then) : Feeds();
      multiply(p, now, &ahead);
      now = then;
    }
    writer_.take(kBlock);
  }

 private:
  // Columns from `col` of the operand that moves, rows of one chunk.
  struct Piece {
    int64_t row = 0, col = 0;
  };
  struct Strips {
    int staying = 1, moving = 1;
  };
  struct Feeds {
    TurnedFeed dy;
    PairsFeed x;
  };

  const SplitArgs& stays() const { return dy_stays_ ? g_.dy : g_.x; }
  const SplitArgs& moves() const { return dy_stays_ ? g_.x : g_.dy; }
  int64_t rows_of(const Piece& p) const { return std::min(chunk_, g_.m() - p.row); }
  int64_t cols_of(const Piece& p) const { return std::min(kPieceCols, moves().cols - p.col); }
  Piece after(const Piece& p) const {
    if (p.col + kPieceCols < moves().cols) return {p.row, p.col + kPieceCols};
    return {p.row + chunk_, 0};
  }

  // What must be split before p, and where it lies then.
  Feeds feeds(const Piece& p, Strips* at) const {
    at->moving ^= 1;
    SplitArgs moving = part(moves(), p.row, rows_of(p), p.col, cols_of(p)), staying;
    moving.dst = moving_[at->moving];
    if (p.col == 0) {
      at->staying ^= 1;
      staying = part(stays(), p.row, rows_of(p), 0, stays().cols);
      staying.dst = staying_[at->staying];
    }
    return {TurnedFeed(dy_stays_ ? staying : moving), PairsFeed(dy_stays_ ? moving : staying)};
  }

  void multiply(const Piece& p, const Strips& at, Feeds* ahead) {
    const int64_t steps = split_steps(rows_of(p)), stride = split_stride(rows_of(p));
    const int64_t blocks = blocks_of(cols_of(p)) * blocks_of(stays().cols);
    Pace dy(ahead->dy.work(), blocks * steps * kCalls), x(ahead->x.work(), blocks * steps * kCalls);
    for (int64_t i = 0; i < cols_of(p); i += kBlock) {
      const uint16_t* moving = moving_[at.moving] + i / kSplitRows * stride;
      for (int64_t j = 0; j < stays().cols; j += kBlock) {
        const uint16_t* staying = staying_[at.staying] + j / kSplitRows * stride;
        const uint16_t *a = dy_stays_ ? staying : moving, *b = dy_stays_ ? moving : staying;
        const TilesOut out = block_at(p, i, j);
        Pace rows(kBlock, steps * kCalls);
        writer_.begin(out);
        zero_tiles();
        // Where there is no second strip, the first takes its place.
        sum_tiles(
            a, out.rows > kSplitRows ? a + stride : a, b, out.cols > kSplitRows ? b + stride : b,
            steps, [&]() HWY_ATTR __attribute__((always_inline)) {
              ahead->dy.take(dy.next());
              ahead->x.take(x.next());
              writer_.take(rows.next());
            });
        writer_.end();
      }
    }
    ahead->dy.take(ahead->dy.work());
    ahead->x.take(ahead->x.work());
  }

  TilesOut block_at(const Piece& p, int64_t moving, int64_t staying) const {
    const int64_t n = dy_stays_ ? staying : p.col + moving,
                  k = dy_stays_ ? p.col + moving : staying;
    return {.out = g_.dw + n * g_.ldw + k,
            .ld = g_.ldw,
            .rows = std::min(kBlock, g_.dy.cols - n),
            .cols = std::min(kBlock, g_.x.cols - k),
            .add = p.row > 0 || g_.add};
  }

  const SplitGrad& g_;
  const int64_t chunk_;
  const bool dy_stays_;
  uint16_t *staying_[2], *moving_[2];
  SumWriter writer_;
};

void grad_task(const SplitGrad& g) { GradTask(g).run(); }

#else

void grad_task(const SplitGrad&) { FM_CHECK(false, "this instruction set has no split products"); }

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(grad_task);

namespace {

constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kTasksPerThread = 3;  // of many weights; a single one is read once by each thread
constexpr int64_t kTile = 2 * kSplitRows;
constexpr int64_t kStays = 256;  // columns of the operand that stays

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks of dW: along the wider side as many as tasks are wanted, so that threads split little
// twice.
struct Cut {
  int64_t n_parts = 1, k_parts = 1;
  int64_t tasks() const { return n_parts * k_parts; }
};

Cut cut_grad(const SplitGrad& g, int64_t target_work) {
  const int64_t n = g.dy.cols, k = g.x.cols, narrow = std::min(n, k), wide = std::max(n, k);
  const int64_t narrow_parts = ceil_div(narrow, kStays);
  const int64_t wanted = ceil_div(ceil_div(g.m() * n * k, target_work), narrow_parts);
  const int64_t wide_parts = std::clamp<int64_t>(wanted, 1, ceil_div(wide, kTile));
  return g.dy_stays() ? Cut{narrow_parts, wide_parts} : Cut{wide_parts, narrow_parts};
}

// Where piece `i` of `parts` begins; whole tiles.
int64_t cut_at(int64_t size, int64_t parts, int64_t i) {
  return std::min(size, ceil_div(size, kTile) * i / parts * kTile);
}

void run_cut(const SplitGrad& g, const Cut& cut, int64_t task) {
  const int64_t rb = task / cut.k_parts, cb = task % cut.k_parts;
  const int64_t n0 = cut_at(g.dy.cols, cut.n_parts, rb),
                n1 = cut_at(g.dy.cols, cut.n_parts, rb + 1);
  const int64_t k0 = cut_at(g.x.cols, cut.k_parts, cb), k1 = cut_at(g.x.cols, cut.k_parts, cb + 1);
  float* dw = g.dw + n0 * g.ldw + k0;
  if (g.m() == 0) {
    for (int64_t i = n0; i < n1 && !g.add; ++i) std::fill_n(dw + (i - n0) * g.ldw, k1 - k0, 0.0f);
    return;
  }
  const SplitGrad block{.dy = part(g.dy, 0, g.m(), n0, n1 - n0),
                        .x = part(g.x, 0, g.m(), k0, k1 - k0),
                        .dw = dw,
                        .ldw = g.ldw,
                        .add = g.add};
  HWY_DYNAMIC_DISPATCH(grad_task)(block);
}

}  // namespace

void split_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool) {
  const int64_t work = (p.offsets[p.groups] - p.offsets[0]) * p.n * p.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t pieces = pool.size() * (p.groups > 1 ? kTasksPerThread : 1);
  const int64_t target = serial ? std::max<int64_t>(work, 1) : ceil_div(work, pieces);
  const SplitArgs dy{.src = p.dy, .ld = p.ldy, .gather = p.dy_rows};
  const SplitArgs x{.src = p.x, .ld = p.ldx, .gather = p.x_rows};
  const auto group = [&](int64_t e) {
    const int64_t first = p.offsets[e], m = p.offsets[e + 1] - first;
    return SplitGrad{.dy = part(dy, first, m, 0, p.n),
                     .x = part(x, first, m, 0, p.k),
                     .dw = p.dw[e],
                     .ldw = p.ldw,
                     .add = p.add};
  };
  int64_t tasks = 0;
  for (int64_t e = 0; e < p.groups; ++e) tasks += cut_grad(group(e), target).tasks();
  const auto run = [&](int64_t begin, int64_t end, int) {
    int64_t base = 0;
    for (int64_t e = 0; e < p.groups && base < end; ++e) {
      const SplitGrad g = group(e);
      const Cut cut = cut_grad(g, target);
      const int64_t stop = std::min(end - base, cut.tasks());
      for (int64_t task = std::max<int64_t>(begin - base, 0); task < stop; ++task)
        run_cut(g, cut, task);
      base += cut.tasks();
    }
  };
  if (serial) return run(0, tasks, 0);
  pool.parallel_for(tasks, 1, run);
}

}  // namespace fathom::simd
#endif  // HWY_ONCE
