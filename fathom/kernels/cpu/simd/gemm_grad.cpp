// Weight gradient dW = dy^T x in chunks of rows (see gemm.h). Both operands already run along their
// output dimension: one of them, the narrower where there is a choice, is copied into strips as
// high as a tile; the other is read where it is, or copied into 16-wide panels. When that one is
// dy, the sums are those of dW^T, and turned at the end.
#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_grad_split.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using simd::TileArgs;
using simd::TileTable;

constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kTasksPerThread = 3;  // of many weights; a single one is read once by each thread
constexpr int64_t kLeastTiles = 2, kLeastPanels = 4;  // of a task's block of dW
constexpr int64_t kFarApart = 1024;  // floats between rows, from which on they share few cache sets

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One operand: row i is at + (rows ? rows[i] : i) * ld.
struct Side {
  const float* at = nullptr;
  int64_t ld = 0;
  const int32_t* rows = nullptr;
  int64_t cols = 0;

  bool in_place() const { return !rows && ld < kFarApart && cols % kPanelCols == 0; }
  Side from_row(int64_t i) const {
    return {rows ? at : at + i * ld, ld, rows ? rows + i : rows, cols};
  }
};

struct Grad {
  Side dy, x;
  float* dw = nullptr;
  int64_t ldw = 0, m = 0;
  bool add = false;
  int64_t threads = 1;

  bool turned() const { return dy.in_place() && (!x.in_place() || x.cols < dy.cols); }
  const Side& a() const { return turned() ? x : dy; }  // in strips
  const Side& b() const { return turned() ? dy : x; }
};

// The sums in blocks of rows (columns of a) by blocks of panels_each panels (columns of b).
struct Cut {
  int64_t panels_each = 1, row_blocks = 0, col_blocks = 0;
  int64_t tasks() const { return row_blocks * col_blocks; }
};

Cut cut_grad(const TileTable& t, const Grad& g, int64_t target_work) {
  const int64_t wide = t.panels[t.max_rows];
  const int64_t tiles = ceil_div(g.a().cols, t.max_rows), panels = ceil_div(g.b().cols, kPanelCols);
  const int64_t wanted = ceil_div(g.m * g.a().cols * g.b().cols, target_work);
  Cut c;
  c.row_blocks =
      std::max(ceil_div(tiles, t.grad_tiles), std::min(wanted, ceil_div(tiles, kLeastTiles)));
  c.col_blocks = std::max(ceil_div(panels, t.grad_panels),
                          std::min(ceil_div(wanted, c.row_blocks), ceil_div(panels, kLeastPanels)));
  c.panels_each = ceil_div(ceil_div(panels, c.col_blocks), wide) * wide;
  c.col_blocks = ceil_div(panels, c.panels_each);
  return c;
}

constexpr int64_t kStripPad = 16;  // strips do not start in the same cache sets

int64_t strip_floats(int64_t rows) { return rows * kPanelCols + kStripPad; }

// dst[strips][rows][16] from columns c0 .. of a side, strip s starting at column c0 + s * step;
// columns past the side's are zero. Strips lie kStripPad floats apart.
void pack_strips(const TileTable& t, const Side& side, int64_t c0, int64_t rows, int64_t strips,
                 int64_t step, float* dst) {
  const int64_t cols = side.cols - c0, ld_strip = strip_floats(rows);
  const int64_t whole = cols < kPanelCols ? 0 : std::min(strips, (cols - kPanelCols) / step + 1);
  t.copy({.src = side.at + c0,
          .ld = side.ld,
          .gather = side.rows,
          .rows = rows,
          .strips = whole,
          .step = step,
          .dst = dst,
          .ld_strip = ld_strip});
  for (int64_t s = whole; s < strips; ++s) {
    float* out = dst + s * ld_strip;
    for (int64_t r = 0; r < rows; ++r, out += kPanelCols) {
      const float* row = side.at + (side.rows ? side.rows[r] : r) * side.ld + c0 + s * step;
      std::fill(std::copy_n(row, cols - s * step, out), out + kPanelCols, 0.0f);
    }
  }
}

// dst[c][r] = src[r][c]; `room` holds 16 * cols floats.
void turn(const TileTable& t, const float* src, int64_t ld, int64_t rows, int64_t cols, float* dst,
          int64_t ld_dst, float* room) {
  int64_t r = 0;
  for (; r + kPanelCols <= rows; r += kPanelCols) {
    t.transpose(src + r * ld, ld, cols, room);
    for (int64_t c = 0; c < cols; ++c)
      std::memcpy(dst + c * ld_dst + r, room + c * kPanelCols, kPanelCols * sizeof(float));
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) dst[c * ld_dst + r] = src[r * ld + c];
}

// The sums of columns [a0, a1) of a with panels [p0, p1) of b.
void run_task(const TileTable& t, const Grad& g, int64_t a0, int64_t a1, int64_t p0, int64_t p1) {
  const bool turned = g.turned();
  const int64_t b0 = p0 * kPanelCols, cols = std::min(p1 * kPanelCols, g.b().cols) - b0;
  const int64_t height = a1 - a0, tiles = ceil_div(height, t.max_rows);
  const int64_t tall = ceil_div(height, tiles), strips = ceil_div(height, tall);
  const int64_t wide = t.panels[t.max_rows];
  const int64_t chunk = std::min(kGradChunk, g.m), copied_panels = g.b().in_place() ? 0 : p1 - p0;
  const int64_t ld_sum = turned ? cols + kStripPad : g.ldw;
  const int64_t sum_floats = turned ? ceil_div(height * ld_sum, kPanelCols) * kPanelCols : 0;
  float* a =
      simd::thread_scratch(static_cast<size_t>(strip_floats(chunk) * (copied_panels + strips) +
                                               sum_floats + kPanelCols * std::max(height, cols)));
  float* b = a + strip_floats(chunk) * strips;
  float* room = b + strip_floats(chunk) * copied_panels + sum_floats;
  float* sum = turned ? b + strip_floats(chunk) * copied_panels : g.dw + a0 * g.ldw + b0;
  float* dw_turned = g.dw + b0 * g.ldw + a0;
  if (turned && g.add) turn(t, dw_turned, g.ldw, cols, height, sum, ld_sum, room);
  for (int64_t i0 = 0; i0 < g.m; i0 += chunk) {
    const int64_t rows = std::min(chunk, g.m - i0), next = i0 + rows;
    const Side side_a = g.a().from_row(i0), side_b = g.b().from_row(i0);
    pack_strips(t, side_a, a0, rows, strips, tall, a);
    TileArgs args{.k = rows, .lda = kPanelCols, .ld_out = ld_sum};
    const float* first_b = b;
    if (side_b.in_place()) {
      first_b = side_b.at + b0;
      args.b_panel = kPanelCols;
      args.b_step = side_b.ld;
    } else {
      pack_strips(t, side_b, b0, rows, p1 - p0, kPanelCols, b);
      args.b_panel = strip_floats(rows);
    }
    // The next chunk, or the start of the group that this thread takes next if all are alike.
    const int64_t later_row = next < g.m ? next - i0 : g.threads * g.m - i0;
    simd::Early later_b{side_b.at + later_row * side_b.ld,
                        side_b.in_place() ? rows * side_b.ld : 0};
    simd::Early later_a{side_a.at + later_row * side_a.ld,
                        !side_a.rows && 2 * height >= side_a.ld ? rows * side_a.ld : 0};
    for (int64_t i = 0; i < height; i += tall) {
      args.a = a + i / tall * strip_floats(rows);
      for (int64_t q = 0; q < p1 - p0; q += wide) {
        const int64_t width = std::min(wide, p1 - p0 - q);
        args.b = first_b + q * args.b_panel;
        args.cols = std::min(width * kPanelCols, cols - q * kPanelCols);
        args.out = sum + i * ld_sum + q * kPanelCols;
        args.c_old = i0 > 0 || g.add ? args.out : nullptr;
        args.ahead = later_b.next(rows);
        if (args.ahead == nullptr) args.ahead = later_a.next(rows);
        t.col_tile[std::min(tall, height - i)][width](args);
      }
    }
  }
  if (turned) turn(t, sum, ld_sum, height, cols, dw_turned, g.ldw, room);
}

void run_cut(const TileTable& t, const Grad& g, const Cut& cut, int64_t task) {
  const int64_t rb = task / cut.col_blocks, cb = task % cut.col_blocks;
  if (g.m == 0) {
    if (task > 0 || g.add) return;
    for (int64_t i = 0; i < g.dy.cols; ++i) std::fill_n(g.dw + i * g.ldw, g.x.cols, 0.0f);
    return;
  }
  const int64_t a0 = g.a().cols * rb / cut.row_blocks, a1 = g.a().cols * (rb + 1) / cut.row_blocks;
  const int64_t p0 = cb * cut.panels_each;
  run_task(t, g, a0, a1, p0, std::min(p0 + cut.panels_each, ceil_div(g.b().cols, kPanelCols)));
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
                            .add = p.add,
                            .products = p.products},
                           pool);
}

void gemm_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool) {
  if (p.groups <= 0 || p.n <= 0 || p.k <= 0) return;
  if (p.products == GradProducts::kSplit) {
    FM_CHECK(simd::has_split_products(), "split products on a machine without them");
    return simd::split_weight_grad_grouped(p, pool);
  }
  const TileTable& t = simd::tile_table();
  const int64_t work = (p.offsets[p.groups] - p.offsets[0]) * p.n * p.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t pieces = pool.size() * (p.groups > 1 ? kTasksPerThread : 1);
  const int64_t target = serial ? std::max<int64_t>(work, 1) : ceil_div(work, pieces);
  const auto group = [&](int64_t e) {
    const int64_t first = p.offsets[e];
    return Grad{.dy = Side{p.dy, p.ldy, p.dy_rows, p.n}.from_row(first),
                .x = Side{p.x, p.ldx, p.x_rows, p.k}.from_row(first),
                .dw = p.dw[e],
                .ldw = p.ldw,
                .m = p.offsets[e + 1] - first,
                .add = p.add,
                .threads = pool.size()};
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
