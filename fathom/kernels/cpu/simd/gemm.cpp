// Drivers of the matrix product: cut C into tasks, block over k, call register tiles (see gemm.h).
#include "fathom/kernels/gemm.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/int_tiles.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/cpu/simd/split_rows.h"

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

using simd::DecodeFn;
using simd::QuantTable;
using simd::TileArgs;
using simd::TileTable;

constexpr int64_t kTaskPanels = 32;
// Below this many multiply-adds a fork-join costs more than it saves.
constexpr int64_t kSerialWork = 48 * 1024;
// One product of many rows: more pieces read its operands more often.
constexpr int64_t kTasksPerThread = 6, kTasksOfManyRows = 3;
// A thread's multiply-adds in some 0.1 ms: below, what each task costs outweighs a late thread.
constexpr int64_t kShortShare = 10 << 20;
constexpr int64_t kRowPad = 16;  // copied rows do not start in the same cache sets
constexpr int64_t kSplitBlockRows = 2 * simd::kSplitRows;
constexpr int64_t kDecodeK = 256;  // k of bf16 panels decoded at a time

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
  const PackedB* next = nullptr;  // weights that this thread takes after these, or null
  int64_t threads = 1;
};

// How C[m][n] is cut: row blocks and panel blocks of near equal size.
struct Cut {
  int64_t row_blocks = 0, panel_blocks = 0, panels_each = 0;
  int64_t tasks() const { return row_blocks * panel_blocks; }
};

// Where k takes several passes, B is large: few tasks read all rows and their own columns.
Cut cut_split(int64_t m, int64_t n, int64_t k, int64_t target_work) {
  const int64_t panels = ceil_div(n, kPanelCols);
  int64_t tasks = (m * n * k - 1) / target_work + 1;
  Cut cut;
  cut.panel_blocks = ceil_div(n, simd::split_task_columns(k));
  if (simd::split_pass(k) < k) {
    tasks = ceil_div(tasks, kTasksOfManyRows);
    cut.panel_blocks = std::max(cut.panel_blocks, std::min(tasks, ceil_div(panels, 8)));
  }
  cut.panels_each = ceil_div(ceil_div(panels, cut.panel_blocks), 2) * 2;
  cut.panel_blocks = ceil_div(panels, cut.panels_each);
  cut.row_blocks =
      std::clamp<int64_t>(ceil_div(tasks, cut.panel_blocks), 1, ceil_div(m, kSplitBlockRows));
  return cut;
}

// A product that has a short region to itself: one equal share for each of the threads, of rows
// where those fill tasks, else of panels. No tasks where that cannot be.
Cut cut_shares(const TileTable& t, int64_t m, const PackedB& b, int64_t threads) {
  const int64_t panels = ceil_div(b.n, kPanelCols);
  // With few rows or columns it is the reading of the other operand that takes the time.
  const int64_t work = std::max<int64_t>(m, t.max_rows) * std::max(b.n, 4 * kPanelCols) * b.k;
  if (b.type == PackedType::kSplit || work > threads * kShortShare) return {};
  if (m >= threads * t.task_tiles * t.max_rows) return {threads, 1, panels};
  if (panels % threads == 0) return {1, threads, panels / threads};
  return {};
}

Cut cut_product(const TileTable& t, int64_t m, const PackedB& b, int64_t target_work) {
  const int64_t n = b.n, k = std::max<int64_t>(b.k, 1);
  if (b.type == PackedType::kSplit) return cut_split(m, n, k, target_work);
  const int64_t panels = ceil_div(n, kPanelCols);
  const int64_t tiles = ceil_div(m, t.max_rows);
  const int64_t wide = t.panels[std::min<int64_t>(m, t.max_rows)];
  int64_t tiles_each = std::min(tiles, t.task_tiles), each = std::min(panels, kTaskPanels);
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

void request_row(const float* row, int64_t floats) {
  for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(row + i, 0, 2);
}

const float* row_of(const Product& p, int64_t i) {
  return p.a + (p.a_rows ? p.a_rows[i] : i) * p.lda;
}

// One task: C[m0..m1) x panels [p0..p1), k cut into passes of kc. A single row of tiles takes its
// panels one after another over all k; several rows of tiles share a panel within a pass.
class Task {
 public:
  Task(const TileTable& t, const Product& p, int64_t m0, int64_t m1, int64_t p0, int64_t p1);
  void run();

 private:
  const float* take_rows(int64_t k0, int64_t kc);
  TileArgs weights(int64_t k0, int64_t q);
  void panels(const float* a, int64_t k0, int64_t q);
  void request_after(int64_t k0, int64_t q);
  void stream(const float* a);

  const TileTable& t_;
  const Product& p_;
  const int64_t m0_, m1_, p0_, p1_, rows_, n_, k_;
  const int64_t tiles_, tall_, wide_;  // tiles of tall_ and tall_ - 1 rows
  const bool plain_, scaled_;          // f32; a scale for each kScaleBlock
  const float* scales_;
  int64_t kc_ = 0;
  bool keep_partial_ = false;
  int64_t lda_ = 0;  // of the rows at hand
  // Weights that are used next, then rows of a later task.
  simd::Early early_[simd::kMaxPanels + 1];
  float* rows_room_ = nullptr;
  float* weights_room_ = nullptr;
  float* partial_ = nullptr;  // sums between passes: C itself where that is possible
  int64_t ld_partial_ = 0;
};

Task::Task(const TileTable& t, const Product& p, int64_t m0, int64_t m1, int64_t p0, int64_t p1)
    : t_(t),
      p_(p),
      m0_(m0),
      m1_(m1),
      p0_(p0),
      p1_(p1),
      rows_(m1 - m0),
      n_(p.b->n),
      k_(p.b->k),
      tiles_(ceil_div(rows_, t.max_rows)),
      tall_(ceil_div(rows_, tiles_)),
      wide_(t.panels[tall_]),
      plain_(p.b->type == PackedType::kF32),
      scaled_(p.b->scales != nullptr),
      scales_(static_cast<const float*>(p.b->scales)) {
  kc_ = scaled_                 ? kScaleBlock
        : plain_ && tiles_ == 1 ? k_
                                : std::min(k_, plain_ ? t.block_k : kDecodeK);
  // Partial sums are read and written by whole panels, which C may not have at its right edge.
  keep_partial_ = kc_ < k_ && (p.add || p1 * kPanelCols > n_);
  const int64_t span = (p1 - p0) * kPanelCols;
  const int64_t copied_k = ceil_div(tiles_ == 1 ? k_ : kc_, kPanelCols) * kPanelCols + kRowPad;
  const int64_t row_floats = p.a_rows ? rows_ * copied_k : 0;
  const int64_t weight_floats = plain_ ? 0 : wide_ * kPanelCols * (kc_ + 1);
  float* room = simd::thread_scratch(static_cast<size_t>(
      row_floats + weight_floats + (keep_partial_ ? rows_ * span : 0) + 2 * kPanelCols));
  weights_room_ = room;
  rows_room_ = room + ceil_div(weight_floats, kPanelCols) * kPanelCols;
  partial_ = keep_partial_ ? rows_room_ + row_floats : p.c + m0 * p.ldc + p0 * kPanelCols;
  ld_partial_ = keep_partial_ ? span : p.ldc;
}

// Gathered rows are copied together, which also requests them early; others are used in place.
const float* Task::take_rows(int64_t k0, int64_t kc) {
  if (p_.a_rows == nullptr) {
    lda_ = p_.lda;
    return p_.a + m0_ * p_.lda + k0;
  }
  constexpr int64_t kEarly = 4;
  lda_ = ceil_div(kc, kPanelCols) * kPanelCols + kRowPad;
  for (int64_t i = 0; i < rows_; ++i) {
    if (i + kEarly < rows_) request_row(row_of(p_, m0_ + i + kEarly) + k0, kc);
    std::memcpy(rows_room_ + i * lda_, row_of(p_, m0_ + i) + k0,
                static_cast<size_t>(kc) * sizeof(float));
  }
  return rows_room_;
}

// What the tiles of the panels from q on share in the pass from k0 on; decodes them unless f32.
TileArgs Task::weights(int64_t k0, int64_t q) {
  const int64_t width = std::min(wide_, p1_ - q);
  const bool last = k0 + kc_ >= k_;
  TileArgs args{.k = std::min(kc_, k_ - k0), .lda = lda_};
  args.ld_prev = ld_partial_;
  args.ld_out = last ? p_.ldc : ld_partial_;
  // The scratch holds whole panels, C only n columns.
  const int64_t in_c = std::min(width * kPanelCols, n_ - q * kPanelCols);
  args.cols = keep_partial_ && !last ? width * kPanelCols : in_c;
  if (plain_) {
    args.b = static_cast<const float*>(p_.b->data) + (q * k_ + k0) * kPanelCols;
    args.b_panel = k_ * kPanelCols;
    return args;
  }
  const int64_t element = p_.b->type == PackedType::kBF16 ? 2 : 1;
  const auto* data = static_cast<const char*>(p_.b->data);
  const int64_t blocks = ceil_div(k_, kScaleBlock), kb = k0 / kScaleBlock;
  float* scale = weights_room_ + wide_ * kPanelCols * kc_;
  const DecodeFn decode = simd::quant_table(p_.b->type).decode;
  for (int64_t w = 0; w < width; ++w) {
    decode(data + ((q + w) * k_ + k0) * kPanelCols * element, args.k * kPanelCols,
           weights_room_ + w * kPanelCols * kc_);
    if (scaled_) std::fill_n(scale + w * kPanelCols, kPanelCols, scales_[(q + w) * blocks + kb]);
  }
  args.b = weights_room_;
  args.b_panel = kc_ * kPanelCols;
  args.scale = scaled_ ? scale : nullptr;
  return args;
}

// Requests the weights that follow the panels from q on: the next ones, or the first ones of the
// next pass or product.
void Task::request_after(int64_t k0, int64_t q) {
  const PackedB* b = q + wide_ < p1_ || k0 + kc_ < k_ ? p_.b : p_.next;
  if (!plain_ || b == nullptr) return;
  const int64_t panel = q + wide_ < p1_ ? q + wide_ : b == p_.b ? p0_ : 0;
  const int64_t k = q + wide_ < p1_ ? k0 : b == p_.b ? k0 + kc_ : 0;
  for (int64_t w = 0; w < wide_; ++w) {
    early_[w] = {static_cast<const float*>(b->data) + ((panel + w) * b->k + k) * kPanelCols,
                 std::min(kc_, b->k - k) * kPanelCols};
  }
}

// All tiles of the panels from q on, one pass; `a` has the rows from k0 on.
void Task::panels(const float* a, int64_t k0, int64_t q) {
  const bool last = k0 + kc_ >= k_;
  const int64_t width = std::min(wide_, p1_ - q);
  TileArgs args = weights(k0, q);
  if (tiles_ > 1) request_after(k0, q);
  float* partial = partial_ + (q - p0_) * kPanelCols;
  float* c = p_.c + m0_ * p_.ldc + q * kPanelCols;
  for (int64_t i = 0, height; i < rows_; i += height) {
    const int64_t left = rows_ - i;
    height = ceil_div(left, ceil_div(left, tall_));
    args.a = a + i * lda_;
    args.prev = k0 > 0 ? partial + i * ld_partial_ : nullptr;
    args.out = last ? c + i * p_.ldc : partial + i * ld_partial_;
    args.c_old = last && p_.add ? args.out : nullptr;
    args.ahead = nullptr;
    for (simd::Early& early : early_)
      if (args.ahead == nullptr) args.ahead = early.next(args.k);
    (tiles_ == 1 ? t_.far_tile : t_.row_tile)[height][width](args);
  }
}

// Few rows of coded weights: decoded in registers.
void Task::stream(const float* a) {
  const QuantTable& quant = simd::quant_table(p_.b->type);
  const int64_t element = p_.b->type == PackedType::kBF16 ? 2 : 1;
  const int64_t wide = quant.panels[rows_];
  for (int64_t q = p0_; q < p1_; q += wide) {
    const int64_t width = std::min(wide, p1_ - q);
    simd::StreamArgs args{.k = k_,
                          .a = a,
                          .lda = lda_,
                          .out = p_.c + m0_ * p_.ldc + q * kPanelCols,
                          .ld_out = p_.ldc};
    args.b = static_cast<const char*>(p_.b->data) + q * k_ * kPanelCols * element;
    if (scaled_) args.scales = scales_ + q * ceil_div(k_, kScaleBlock);
    args.c_old = p_.add ? args.out : nullptr;
    args.cols = std::min(width * kPanelCols, n_ - q * kPanelCols);
    quant.stream[rows_][width](args);
  }
}

void Task::run() {
  if (tiles_ == 1) {
    const float* a = take_rows(0, k_);
    if (!plain_ && rows_ <= simd::quant_table(p_.b->type).max_rows) return stream(a);
    for (int64_t q = p0_; q < p1_; q += wide_) {
      for (int64_t k0 = 0; k0 < k_; k0 += kc_) panels(a + k0, k0, q);
    }
    return;
  }
  // Blocks of rows go round the threads.
  if (p_.a_rows == nullptr && kc_ == k_ && p_.lda == k_)
    early_[simd::kMaxPanels] = {p_.a + (m0_ + p_.threads * rows_) * k_, rows_ * k_};
  for (int64_t k0 = 0; k0 < k_; k0 += kc_) {
    const float* a = take_rows(k0, std::min(kc_, k_ - k0));
    for (int64_t q = p0_; q < p1_; q += wide_) panels(a, k0, q);
  }
}

void clear(const Product& p) {
  if (p.add) return;
  for (int64_t i = 0; i < p.m; ++i) std::fill_n(p.c + i * p.ldc, p.b->n, 0.0f);
}

void run_split(const Product& p, int64_t m0, int64_t m1, int64_t p0, int64_t p1) {
  const int64_t k = p.b->k, n0 = p0 * kPanelCols;
  simd::split_rows_times({.a = p.a_rows ? p.a : p.a + m0 * p.lda,
                          .lda = p.lda,
                          .a_rows = p.a_rows ? p.a_rows + m0 : nullptr,
                          .m = m1 - m0,
                          .k = k,
                          .cols = std::min(p1 * kPanelCols, p.b->n) - n0,
                          .b = static_cast<const uint16_t*>(p.b->data) + p0 * simd::split_stride(k),
                          .c = p.c + m0 * p.ldc + n0,
                          .ldc = p.ldc,
                          .add = p.add});
}

void run_cut(const TileTable& t, const Product& p, const Cut& cut, int64_t task) {
  // Neighbouring tasks share their weights.
  const int64_t rb = task % cut.row_blocks, pb = task / cut.row_blocks;
  // Blocks differ by at most one row, or one block of rows.
  const int64_t unit = p.b->type == PackedType::kSplit ? kSplitBlockRows : 1;
  const int64_t units = ceil_div(p.m, unit);
  const int64_t m0 = units * rb / cut.row_blocks * unit;
  const int64_t m1 = std::min(units * (rb + 1) / cut.row_blocks * unit, p.m);
  const int64_t p0 = pb * cut.panels_each;
  const int64_t p1 = std::min(p0 + cut.panels_each, ceil_div(p.b->n, kPanelCols));
  if (p.b->type == PackedType::kSplit) return run_split(p, m0, m1, p0, p1);
  Task(t, p, m0, m1, p0, p1).run();
}

}  // namespace

void gemm(const GemmParams& p, ThreadPool& pool) {
  if (p.m <= 0 || p.b.n <= 0) return;
  if (is_quantized(p.b.type)) return simd::int_gemm_many(&p, 1, pool);
  const TileTable& t = simd::tile_table();
  const Product product{.a = p.a,
                        .lda = p.lda,
                        .a_rows = p.a_rows,
                        .b = &p.b,
                        .c = p.c,
                        .ldc = p.ldc,
                        .m = p.m,
                        .add = p.add,
                        .threads = pool.size()};
  if (p.b.k <= 0) return clear(product);
  const int64_t work = p.m * p.b.n * p.b.k;
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t tasks = pool.size() * (p.m > t.max_rows ? kTasksOfManyRows : kTasksPerThread);
  const int64_t target = serial ? INT64_MAX : work / tasks;
  Cut cut = serial ? Cut{} : cut_shares(t, p.m, p.b, pool.size());
  if (cut.tasks() == 0) cut = cut_product(t, p.m, p.b, target);
  if (serial) {
    for (int64_t task = 0; task < cut.tasks(); ++task) run_cut(t, product, cut, task);
    return;
  }
  pool.parallel_for(cut.tasks(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) run_cut(t, product, cut, task);
  });
}

void gemm_many(const GemmParams* p, int64_t count, ThreadPool& pool) {
  simd::int_gemm_many(p, count, pool);
  for (int64_t i = 0; i < count; ++i)
    if (!is_quantized(p[i].b.type)) gemm(p[i], pool);
}

void gemm_chain(std::span<const GemmParams> first, std::span<const GemmParams> then,
                ThreadPool& pool) {
  const auto quantised = [](const GemmParams& p) { return is_quantized(p.b.type); };
  if (std::ranges::all_of(first, quantised) && std::ranges::all_of(then, quantised))
    return simd::int_gemm_chain(first, then, pool);
  gemm_many(first.data(), std::ssize(first), pool);
  gemm_many(then.data(), std::ssize(then), pool);
}

void gemm_grouped(const GroupedGemmParams& p, ThreadPool& pool) {
  FM_CHECK(p.groups >= 0 && p.groups <= INT32_MAX, "groups is {}", p.groups);
  if (p.groups == 0) return;
  if (is_quantized(p.b[0].type)) return simd::int_gemm_grouped(p, pool);
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
                   .add = p.add,
                   .next = e + pool.size() < p.groups ? &p.b[e + pool.size()] : nullptr,
                   .threads = pool.size()};
  };
  const auto cut_of = [&](const Product& q) {
    return q.m <= 0 || q.b->n <= 0 ? Cut{} : cut_product(t, q.m, *q.b, target);
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
