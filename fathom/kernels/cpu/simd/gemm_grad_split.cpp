// dW = dy^T x with dy in strips of A and x in strips of B. A task is a block of dW. For each chunk
// of rows it splits the narrower operand, which then stays in the second-level cache, and the other
// one piece by piece.
#include "fathom/kernels/cpu/simd/gemm_grad_split.h"

#include <algorithm>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"

namespace fathom::simd {
namespace {

constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kTasksPerThread = 3;  // of many weights; a single one is read once by each thread
constexpr int64_t kTile = 2 * kSplitRows;
constexpr int64_t kStays = 512;      // columns of the operand that stays
constexpr int64_t kPieceCols = 128;  // columns of the other one that are split at a time

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Grad {
  SplitArgs dy, x;  // dst is still null
  float* dw = nullptr;
  int64_t ldw = 0;
  bool add = false;

  int64_t m() const { return dy.rows; }
  bool dy_stays() const { return dy.cols < x.cols; }
};

// Some columns of some rows.
SplitArgs part(const SplitArgs& s, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  return {.src = s.src + (s.gather ? 0 : row * s.ld) + col,
          .ld = s.ld,
          .gather = s.gather ? s.gather + row : nullptr,
          .rows = rows,
          .cols = cols};
}

void split(SplitFn fn, SplitArgs s, uint16_t* dst) {
  s.dst = dst;
  fn(s);
}

void run_task(const SplitTable& t, const Grad& g) {
  const bool dy_stays = g.dy_stays();
  const SplitArgs &stays = dy_stays ? g.dy : g.x, &moves = dy_stays ? g.x : g.dy;
  const SplitFn split_stays = dy_stays ? t.turned : t.columns,
                split_moves = dy_stays ? t.columns : t.turned;
  const int64_t chunk = std::min(kGradChunk, g.m());
  const int64_t kept = split_strips(stays.cols) * split_stride(chunk);
  const int64_t room = kept + split_strips(kPieceCols) * split_stride(chunk);
  auto* staying = reinterpret_cast<uint16_t*>(thread_scratch(static_cast<size_t>(room / 2)));
  uint16_t* moving = staying + kept;
  for (int64_t i = 0; i < g.m(); i += chunk) {
    const int64_t rows = std::min(chunk, g.m() - i);
    split(split_stays, part(stays, i, rows, 0, stays.cols), staying);
    for (int64_t c = 0; c < moves.cols; c += kPieceCols) {
      const int64_t cols = std::min(kPieceCols, moves.cols - c);
      split(split_moves, part(moves, i, rows, c, cols), moving);
      t.multiply({.a = dy_stays ? staying : moving,
                  .b = dy_stays ? moving : staying,
                  .rows = dy_stays ? g.dy.cols : cols,
                  .cols = dy_stays ? cols : g.x.cols,
                  .k = rows,
                  .out = g.dw + (dy_stays ? c : c * g.ldw),
                  .ld_out = g.ldw,
                  .add = i > 0 || g.add});
    }
  }
}

// Blocks of dW: along the wider side as many as tasks are wanted, so that threads split little
// twice.
struct Cut {
  int64_t n_parts = 1, k_parts = 1;
  int64_t tasks() const { return n_parts * k_parts; }
};

Cut cut_grad(const Grad& g, int64_t target_work) {
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

void run_cut(const SplitTable& t, const Grad& g, const Cut& cut, int64_t task) {
  const int64_t rb = task / cut.k_parts, cb = task % cut.k_parts;
  const int64_t n0 = cut_at(g.dy.cols, cut.n_parts, rb),
                n1 = cut_at(g.dy.cols, cut.n_parts, rb + 1);
  const int64_t k0 = cut_at(g.x.cols, cut.k_parts, cb), k1 = cut_at(g.x.cols, cut.k_parts, cb + 1);
  float* dw = g.dw + n0 * g.ldw + k0;
  if (g.m() == 0) {
    for (int64_t i = n0; i < n1 && !g.add; ++i) std::fill_n(dw + (i - n0) * g.ldw, k1 - k0, 0.0f);
    return;
  }
  run_task(t, {.dy = part(g.dy, 0, g.m(), n0, n1 - n0),
               .x = part(g.x, 0, g.m(), k0, k1 - k0),
               .dw = dw,
               .ldw = g.ldw,
               .add = g.add});
}

}  // namespace

void split_weight_grad_grouped(const SplitTable& t, const GroupedWeightGradParams& p,
                               ThreadPool& pool) {
  const int64_t work = (p.offsets[p.groups] - p.offsets[0]) * p.n * p.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t pieces = pool.size() * (p.groups > 1 ? kTasksPerThread : 1);
  const int64_t target = serial ? std::max<int64_t>(work, 1) : ceil_div(work, pieces);
  const SplitArgs dy{.src = p.dy, .ld = p.ldy, .gather = p.dy_rows};
  const SplitArgs x{.src = p.x, .ld = p.ldx, .gather = p.x_rows};
  const auto group = [&](int64_t e) {
    const int64_t first = p.offsets[e], m = p.offsets[e + 1] - first;
    return Grad{.dy = part(dy, first, m, 0, p.n),
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
      const Grad g = group(e);
      const Cut cut = cut_grad(g, target);
      const int64_t stop = std::min(end - base, cut.tasks());
      for (int64_t task = std::max<int64_t>(begin - base, 0); task < stop; ++task)
        run_cut(t, g, cut, task);
      base += cut.tasks();
    }
  };
  if (serial) return run(0, tasks, 0);
  pool.parallel_for(tasks, 1, run);
}

}  // namespace fathom::simd
