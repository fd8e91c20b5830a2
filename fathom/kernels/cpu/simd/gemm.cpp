// Drivers of the matrix product: cut C into tasks, block over k, call register tiles (see gemm.h).
#include "fathom/kernels/gemm.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"

namespace fathom {
namespace simd {

float* thread_scratch(size_t floats) {
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<float[], Free> buffer;
  thread_local size_t size = 0;
  if (floats > size) {
    buffer.reset();
    size = 0;
    buffer.reset(
        static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t{64})));
    size = floats;
  }
  return buffer.get();
}

}  // namespace simd

namespace {

using simd::TileArgs;
using simd::TileTable;

// Block sizes, by `fathom bench kernel`: a panel pair of kBlockK fits L1, a task's A block fits L2.
constexpr int64_t kBlockK = 256;
constexpr int64_t kTaskPanels = 32;
constexpr int64_t kTaskTiles = 16;
// Below this many multiply-adds a fork-join costs more than it saves.
constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kTasksPerThread = 6;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One product with its share of C; the common core of gemm and gemm_grouped.
struct Product {
  const float* a = nullptr;
  int64_t lda = 0;
  const int32_t* a_rows = nullptr;
  const PackedB* b = nullptr;
  float* c = nullptr;
  int64_t ldc = 0, m = 0;
  bool add = false;
};

// How C[m][n] is cut: row blocks and panel blocks of near equal size.
struct Cut {
  int64_t row_blocks = 0, panel_blocks = 0, panels_each = 0;
  int64_t tasks() const { return row_blocks * panel_blocks; }
};

Cut cut_product(const TileTable& t, int64_t m, int64_t n, int64_t k, int64_t target_work) {
  const int64_t panels = ceil_div(n, kPanelCols);
  const int64_t tiles = ceil_div(m, t.max_rows);
  const int64_t wide = t.panels[std::min<int64_t>(m, t.max_rows)];
  int64_t tiles_each = std::min(tiles, kTaskTiles), each = std::min(panels, kTaskPanels);
  const auto work = [&] { return tiles_each * t.max_rows * each * kPanelCols * k; };
  if (tiles == 1) each = std::max(each, wide);
  while (work() > target_work && each > 4 * wide) each = ceil_div(each, 2 * wide) * wide;
  while (work() > target_work && tiles_each > 2) tiles_each = ceil_div(tiles_each, 2);
  while (work() > target_work && each > wide) each = ceil_div(each, 2 * wide) * wide;
  Cut cut;
  cut.row_blocks = ceil_div(tiles, tiles_each);
  cut.panel_blocks = ceil_div(panels, each);
  cut.panels_each = ceil_div(ceil_div(panels, cut.panel_blocks), wide) * wide;
  cut.panel_blocks = ceil_div(panels, cut.panels_each);
  return cut;
}

// Rows of A as the tiles want them: in place, or copied together when gathered or badly strided.
struct RowBlock {
  const float* a;
  int64_t lda;
};

bool wants_copy(const Product& p, int64_t rows) {
  // A stride of whole pages maps all rows of a tile to the same cache sets.
  return p.a_rows != nullptr || (rows > 4 && p.lda % 1024 == 0);
}

RowBlock take_rows(const Product& p, bool copy, int64_t m0, int64_t rows, int64_t k0, int64_t kc,
                   float* room) {
  if (!copy) return {p.a + m0 * p.lda + k0, p.lda};
  const int64_t ld = ceil_div(kc, 16) * 16 + 16;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = p.a_rows ? p.a_rows[m0 + i] : m0 + i;
    std::memcpy(room + i * ld, p.a + row * p.lda + k0, static_cast<size_t>(kc) * sizeof(float));
  }
  return {room, ld};
}

// C[m0..m1) x panels [p0..p1).
void run_task(const TileTable& t, const Product& p, int64_t m0, int64_t m1, int64_t p0,
              int64_t p1) {
  const int64_t rows = m1 - m0, n = p.b->n, k = p.b->k;
  const int64_t tiles = ceil_div(rows, t.max_rows);
  const int64_t tall = ceil_div(rows, tiles);  // tiles of tall and tall - 1 rows
  const int64_t wide = t.panels[tall];
  const int64_t kc = tiles == 1 ? k : kBlockK;
  const bool copy = wants_copy(p, rows);
  const int64_t span = (p1 - p0) * kPanelCols;
  const bool keep_partial = p.add && kc < k;
  const int64_t copy_floats = copy ? rows * (ceil_div(std::min(kc, k), 16) * 16 + 16) : 0;
  float* room =
      simd::thread_scratch(static_cast<size_t>(copy_floats + (keep_partial ? rows * span : 0)));
  float* partial = keep_partial ? room + copy_floats : p.c + m0 * p.ldc + p0 * kPanelCols;
  const int64_t ld_partial = keep_partial ? span : p.ldc;
  const auto* data = static_cast<const float*>(p.b->data);

  for (int64_t k0 = 0; k0 < k; k0 += kc) {
    const bool last = k0 + kc >= k;
    TileArgs args{.k = std::min(kc, k - k0), .b_panel = k * kPanelCols};
    const RowBlock a = take_rows(p, copy, m0, rows, k0, args.k, room);
    args.lda = a.lda;
    args.ld_prev = ld_partial;
    args.ld_out = last ? p.ldc : ld_partial;
    for (int64_t q = p0; q < p1; q += wide) {
      const int64_t width = std::min(wide, p1 - q);
      const int64_t col = (q - p0) * kPanelCols;
      args.b = data + (q * k + k0) * kPanelCols;
      // The scratch holds whole panels, C only n columns.
      const int64_t in_c = std::min(width * kPanelCols, n - q * kPanelCols);
      args.cols = keep_partial && !last ? width * kPanelCols : in_c;
      for (int64_t i = 0; i < rows;) {
        const int64_t left = rows - i, height = ceil_div(left, ceil_div(left, tall));
        args.a = a.a + i * a.lda;
        args.prev = k0 > 0 ? partial + i * ld_partial + col : nullptr;
        float* c = p.c + (m0 + i) * p.ldc + q * kPanelCols;
        args.out = last ? c : partial + i * ld_partial + col;
        args.c_old = last && p.add ? c : nullptr;
        t.row_tile[height][width](args);
        i += height;
      }
    }
  }
}

void clear(const Product& p) {
  if (p.add) return;
  for (int64_t i = 0; i < p.m; ++i) std::fill_n(p.c + i * p.ldc, p.b->n, 0.0f);
}

void run_cut(const TileTable& t, const Product& p, const Cut& cut, int64_t task) {
  // Neighbouring tasks share their weights.
  const int64_t rb = task % cut.row_blocks, pb = task / cut.row_blocks;
  // Blocks differ by at most one row.
  const int64_t m0 = p.m * rb / cut.row_blocks, m1 = p.m * (rb + 1) / cut.row_blocks;
  const int64_t p0 = pb * cut.panels_each;
  run_task(t, p, m0, m1, p0, std::min(p0 + cut.panels_each, ceil_div(p.b->n, kPanelCols)));
}

}  // namespace

void gemm(const GemmParams& p, ThreadPool& pool) {
  if (p.m <= 0 || p.b.n <= 0) return;
  const TileTable& t = simd::tile_table();
  const Product product{.a = p.a,
                        .lda = p.lda,
                        .a_rows = p.a_rows,
                        .b = &p.b,
                        .c = p.c,
                        .ldc = p.ldc,
                        .m = p.m,
                        .add = p.add};
  if (p.b.k <= 0) return clear(product);
  const int64_t work = p.m * p.b.n * p.b.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t target = serial ? INT64_MAX : work / (pool.size() * kTasksPerThread);
  const Cut cut = cut_product(t, p.m, p.b.n, p.b.k, target);
  if (serial) {
    for (int64_t task = 0; task < cut.tasks(); ++task) run_cut(t, product, cut, task);
    return;
  }
  pool.parallel_for(cut.tasks(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) run_cut(t, product, cut, task);
  });
}

void gemm_grouped(const GroupedGemmParams& p, ThreadPool& pool) {
  FM_CHECK(p.groups >= 0 && p.groups <= INT32_MAX, "groups is {}", p.groups);
  if (p.groups == 0) return;
  const TileTable& t = simd::tile_table();
  int64_t work = 0;
  for (int64_t e = 0; e < p.groups; ++e) {
    work += (p.offsets[e + 1] - p.offsets[e]) * p.b[e].n * p.b[e].k;
  }
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t target = serial ? INT64_MAX : work / (pool.size() * kTasksPerThread) + 1;
  const auto group = [&](int64_t e) {
    const int64_t first = p.offsets[e];
    return Product{.a = p.a_rows ? p.a : p.a + first * p.lda,
                   .lda = p.lda,
                   .a_rows = p.a_rows ? p.a_rows + first : nullptr,
                   .b = &p.b[e],
                   .c = p.c + first * p.ldc,
                   .ldc = p.ldc,
                   .m = p.offsets[e + 1] - first,
                   .add = p.add};
  };
  const auto cut_of = [&](const Product& q) {
    return q.m <= 0 || q.b->n <= 0
               ? Cut{}
               : cut_product(t, q.m, q.b->n, std::max<int64_t>(q.b->k, 1), target);
  };
  int64_t tasks = 0;
  for (int64_t e = 0; e < p.groups; ++e) tasks += cut_of(group(e)).tasks();
  const auto run = [&](int64_t begin, int64_t end, int) {
    int64_t base = 0;
    for (int64_t e = 0; e < p.groups && base < end; ++e) {
      const Product q = group(e);
      const Cut cut = cut_of(q);
      for (int64_t task = std::max(begin - base, int64_t{0});
           task < std::min(end - base, cut.tasks()); ++task) {
        if (q.b->k > 0) {
          run_cut(t, q, cut, task);
        } else if (task == 0) {
          clear(q);
        }
      }
      base += cut.tasks();
    }
  };
  if (serial) return run(0, tasks, 0);
  pool.parallel_for(tasks, 1, run);
}

}  // namespace fathom
