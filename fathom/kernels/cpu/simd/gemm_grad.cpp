// Weight gradient dW = dy^T x in chunks of rows (see gemm.h). Both operands already run along their
// output dimension, so packing is copying: x into 16-wide panels, dy into strips as high as a tile.
#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using simd::TileArgs;
using simd::TileTable;

constexpr int64_t kBlockTiles = 16;   // tiles of dW rows in a task
constexpr int64_t kBlockPanels = 32;  // panels of dW columns in a task
constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kTasksPerThread = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Grad {
  const float* dy = nullptr;
  int64_t ldy = 0;
  const float* x = nullptr;
  int64_t ldx = 0;
  const int32_t* x_rows = nullptr;
  float* dw = nullptr;
  int64_t ldw = 0, m = 0, n = 0, k = 0;
  bool add = false;
};

// dW in blocks of tiles_each tiles (rows) by panels_each panels (columns).
struct Cut {
  int64_t tiles_each = 1, panels_each = 1, row_blocks = 0, col_blocks = 0;
  int64_t tasks() const { return row_blocks * col_blocks; }
};

Cut cut_grad(const TileTable& t, const Grad& g, int64_t target_work) {
  const int64_t wide = t.panels[t.max_rows];
  const int64_t tiles = ceil_div(g.n, t.max_rows), panels = ceil_div(g.k, kPanelCols);
  Cut c;
  c.tiles_each = std::min(tiles, kBlockTiles);
  c.panels_each = std::min(panels, kBlockPanels);
  const auto work = [&] { return c.tiles_each * t.max_rows * c.panels_each * kPanelCols * g.m; };
  while (work() > target_work && (c.tiles_each > 2 || c.panels_each > 2 * wide)) {
    // Halve the longer side: packing costs rows + columns.
    if (c.tiles_each * t.max_rows >= c.panels_each * kPanelCols || c.panels_each <= 2 * wide) {
      c.tiles_each = ceil_div(c.tiles_each, 2);
    } else {
      c.panels_each = ceil_div(c.panels_each, 2 * wide) * wide;
    }
  }
  c.row_blocks = ceil_div(tiles, c.tiles_each);
  c.col_blocks = ceil_div(panels, c.panels_each);
  c.panels_each = ceil_div(ceil_div(panels, c.col_blocks), wide) * wide;
  c.col_blocks = ceil_div(panels, c.panels_each);
  return c;
}

// Rows i0.. of x, columns [k0, k0 + cols), as panels [cols/16][rows][16] padded with zeros.
void pack_x(const Grad& g, int64_t i0, int64_t rows, int64_t k0, int64_t cols, float* dst) {
  const int64_t whole = cols / kPanelCols, tail = cols % kPanelCols;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = g.x_rows ? g.x_rows[i0 + i] : i0 + i;
    const float* src = g.x + row * g.ldx + k0;
    float* out = dst + i * kPanelCols;
    for (int64_t q = 0; q < whole; ++q) {
      std::memcpy(out + q * rows * kPanelCols, src + q * kPanelCols, kPanelCols * sizeof(float));
    }
    if (tail > 0) {
      out += whole * rows * kPanelCols;
      std::fill_n(std::copy_n(src + whole * kPanelCols, tail, out), kPanelCols - tail, 0.0f);
    }
  }
}

// The tasks's share of dW: rows [n0, n1), panels [p0, p1).
void run_task(const TileTable& t, const Grad& g, int64_t n0, int64_t n1, int64_t p0, int64_t p1) {
  const int64_t k0 = p0 * kPanelCols, cols = std::min(p1 * kPanelCols, g.k) - k0;
  const int64_t height = n1 - n0, tiles = ceil_div(height, t.max_rows);
  const int64_t tall = ceil_div(height, tiles), wide = t.panels[t.max_rows];
  const int64_t chunk = std::min(kGradChunk, g.m);
  float* x = simd::thread_scratch(static_cast<size_t>(chunk * ((p1 - p0) * kPanelCols)));
  for (int64_t i0 = 0; i0 < g.m; i0 += chunk) {
    const int64_t rows = std::min(chunk, g.m - i0);
    pack_x(g, i0, rows, k0, cols, x);
    TileArgs args{.k = rows, .lda = g.ldy, .b_panel = rows * kPanelCols, .ld_out = g.ldw};
    for (int64_t q = 0; q < p1 - p0; q += wide) {
      const int64_t width = std::min(wide, p1 - p0 - q);
      args.b = x + q * rows * kPanelCols;
      args.cols = std::min(width * kPanelCols, cols - q * kPanelCols);
      for (int64_t i = 0; i < height;) {
        const int64_t left = height - i, take = ceil_div(left, ceil_div(left, tall));
        args.a = g.dy + i0 * g.ldy + n0 + i;
        args.out = g.dw + (n0 + i) * g.ldw + k0 + q * kPanelCols;
        args.c_old = i0 > 0 || g.add ? args.out : nullptr;
        t.col_tile[take][width](args);
        i += take;
      }
    }
  }
}

void run_cut(const TileTable& t, const Grad& g, const Cut& cut, int64_t task) {
  const int64_t rb = task / cut.col_blocks, cb = task % cut.col_blocks;
  const int64_t n0 = g.n * rb / cut.row_blocks, n1 = g.n * (rb + 1) / cut.row_blocks;
  if (g.m == 0) {
    if (cb > 0 || g.add) return;
    for (int64_t i = n0; i < n1; ++i) std::fill_n(g.dw + i * g.ldw, g.k, 0.0f);
    return;
  }
  const int64_t p0 = cb * cut.panels_each;
  run_task(t, g, n0, n1, p0, std::min(p0 + cut.panels_each, ceil_div(g.k, kPanelCols)));
}

}  // namespace

void gemm_weight_grad(const WeightGradParams& p, ThreadPool& pool) {
  const int32_t offsets[2] = {0, static_cast<int32_t>(p.m)};
  FM_CHECK(p.m >= 0 && p.m <= INT32_MAX, "m is {}", p.m);
  gemm_weight_grad_grouped({.dy = p.dy,
                            .ldy = p.ldy,
                            .x = p.x,
                            .ldx = p.ldx,
                            .x_rows = p.x_rows,
                            .offsets = offsets,
                            .groups = 1,
                            .dw = &p.dw,
                            .ldw = p.ldw,
                            .n = p.n,
                            .k = p.k,
                            .add = p.add},
                           pool);
}

void gemm_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool) {
  if (p.groups <= 0 || p.n <= 0 || p.k <= 0) return;
  const TileTable& t = simd::tile_table();
  const int64_t work = (p.offsets[p.groups] - p.offsets[0]) * p.n * p.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t target = serial ? INT64_MAX : work / (pool.size() * kTasksPerThread) + 1;
  const auto group = [&](int64_t e) {
    const int64_t first = p.offsets[e];
    return Grad{.dy = p.dy + first * p.ldy,
                .ldy = p.ldy,
                .x = p.x_rows ? p.x : p.x + first * p.ldx,
                .ldx = p.ldx,
                .x_rows = p.x_rows ? p.x_rows + first : nullptr,
                .dw = p.dw[e],
                .ldw = p.ldw,
                .m = p.offsets[e + 1] - first,
                .n = p.n,
                .k = p.k,
                .add = p.add};
  };
  int64_t tasks = 0;
  for (int64_t e = 0; e < p.groups; ++e) tasks += cut_grad(t, group(e), target).tasks();
  const auto run = [&](int64_t begin, int64_t end, int) {
    int64_t base = 0;
    for (int64_t e = 0; e < p.groups && base < end; ++e) {
      const Grad g = group(e);
      const Cut cut = cut_grad(t, g, target);
      const int64_t stop = std::min(end - base, cut.tasks());
      for (int64_t task = std::max<int64_t>(begin - base, 0); task < stop; ++task) {
        run_cut(t, g, cut, task);
      }
      base += cut.tasks();
    }
  };
  if (serial) return run(0, tasks, 0);
  pool.parallel_for(tasks, 1, run);
}

}  // namespace fathom
