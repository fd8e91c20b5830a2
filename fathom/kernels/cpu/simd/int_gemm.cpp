// Drivers of the products with quantised weights: code the rows of A once, cut every C into tasks
// of whole tiles, run the tasks of all products of a call in one parallel region.
#include <algorithm>
#include <bit>
#include <memory>
#include <new>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/int_tiles.h"

namespace fathom::simd {
namespace {

// Below this many multiply-adds a fork-join costs more than it saves.
constexpr int64_t kSerialWork = 48 * 1024;
constexpr int64_t kLeastTask = 8 * 1024;    // multiply-adds: a pair of panels
constexpr int64_t kLeastPiece = 32 * 1024;  // a claim costs as much as a tenth of it
constexpr int64_t kMostRounds = 5;
constexpr int64_t kAskedCodes = 384;  // bytes: a row of a small model
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kTaskRows = 96;          // whose codes stay in the nearest caches
constexpr int64_t kCodedEach = 32 * 1024;  // numbers that a task of coding takes

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Grown on demand. Apart from thread_scratch(), which the caller's own share of the tasks may use.
class CodeRoom {
 public:
  char* take(int64_t bytes) {
    if (bytes > size_) {
      data_.reset(
          static_cast<char*>(::operator new[](static_cast<size_t>(bytes), std::align_val_t{64})));
      size_ = bytes;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<char[], Free> data_;
  int64_t size_ = 0;
};

constexpr int64_t coded_bytes(int64_t groups) {  // of a row
  return groups * (kQuantGroup + int64_t{sizeof(float) + sizeof(int32_t)});
}

// The tasks of a region in equal parts of neighbours, one for each thread, which reads its weights
// as one stream. What is late or slow is made up for: a part is claimed in pieces, each half of
// what is left of it, and a thread that is done takes the next piece of any part.
class Pieces {
 public:
  // `work`: multiply-adds of all tasks.
  Pieces(int64_t tasks, int64_t work, int64_t threads)
      : tasks_(tasks), parts_(std::min(threads, tasks)) {
    const int64_t pieces = std::min(work / kLeastPiece, tasks) / parts_;
    rounds_ = std::clamp<int64_t>(std::bit_width(static_cast<uint64_t>(pieces)), 1, kMostRounds);
  }
  int64_t size() const { return parts_ * rounds_; }
  // fn(begin, end) for the tasks of a piece. The first pieces of all parts come first.
  template <class F>
  void run(int64_t piece, const F& fn) const {
    const int64_t part = piece % parts_, round = piece / parts_;
    const int64_t begin = tasks_ * part / parts_, end = tasks_ * (part + 1) / parts_;
    const auto after = [&](int64_t rounds) { return end - ((end - begin) >> rounds); };
    fn(after(round), round + 1 == rounds_ ? end : after(round + 1));
  }

 private:
  int64_t tasks_, parts_, rounds_;
};

// How C[m][n] is cut: blocks of whole tiles.
struct Cut {
  int64_t row_blocks = 0, panel_blocks = 0, panels_each = 0;
  int64_t tasks() const { return row_blocks * panel_blocks; }
};

Cut cut_product(const IntTable& t, int64_t m, int64_t n, int64_t k, int64_t target_work) {
  if (m <= 0 || n <= 0) return {};
  const int64_t panels = ceil_div(n, kPanelCols), wide = t.panels[std::min<int64_t>(m, t.max_rows)];
  Cut cut;
  cut.row_blocks = ceil_div(m, kTaskRows);
  const int64_t rows = ceil_div(m, cut.row_blocks);
  const int64_t per_tile = std::max<int64_t>(rows * wide * kPanelCols * k, 1);
  cut.panels_each = std::min(std::max<int64_t>(target_work / per_tile, 1) * wide, panels);
  cut.panel_blocks = ceil_div(panels, cut.panels_each);
  return cut;
}

// Rows of A that several products may share.
struct Source {
  CodeArgs code;  // all its rows
  PackedType type;
  int64_t first_task = 0;
  int64_t rows_each() const {
    return std::max<int64_t>(1, kCodedEach / std::max<int64_t>(code.k, 1));
  }
  int64_t tasks() const { return ceil_div(code.end, rows_each()); }
};

struct Product {
  GemmParams p;
  size_t source = 0;
  Cut cut;
  int64_t first_task = 0;
};

struct Plan;

// Kept per thread: a decoded token takes no memory here.
struct Region {
  std::vector<Source> sources;
  std::vector<Product> products;
  CodeRoom room;

  void clear() {
    sources.clear();
    products.clear();
  }
  void add(const GemmParams& p);
  void run(ThreadPool& pool);
  void run(const Plan& p, ThreadPool& pool);
  Plan plan(const ThreadPool& pool);
  void code(int64_t begin, int64_t end) const;  // tasks of coding

 private:
  int64_t place_codes();
  void cut(const IntTable& t, int64_t target_work);
};

CodedRows from_row(CodedRows a, int64_t i) {
  a.codes += i * a.groups * kQuantGroup;
  a.scales += i * a.groups;
  a.shifts += i * a.groups;
  return a;
}

// Rows m0 .. m1-1 of panels q0 .. q1-1.
void run_tiles(const IntTable& t, const GemmParams& p, const CodedRows& codes, int64_t m0,
               int64_t m1, int64_t q0, int64_t q1) {
  if (m0 == m1) return;
  const int64_t groups = codes.groups, bytes = groups * quant_group_bytes(p.b.type);
  const auto& tiles = p.b.type == PackedType::kQ8 ? t.q8 : t.q4;
  const int64_t count = ceil_div(m1 - m0, t.max_rows), tall = ceil_div(m1 - m0, count);
  const int64_t wide = t.panels[tall];
  for (int64_t q = q0; q < q1; q += wide) {
    const int64_t width = std::min(wide, q1 - q);
    IntTileArgs args{.b = static_cast<const uint8_t*>(p.b.data) + q * bytes,
                     .scales = static_cast<const uint16_t*>(p.b.scales) + q * groups * kPanelCols,
                     .ld_out = p.ldc,
                     .cols = std::min(width * kPanelCols, p.b.n - q * kPanelCols)};
    for (int64_t i = m0, height; i < m1; i += height) {
      height = ceil_div(m1 - i, ceil_div(m1 - i, tall));
      args.a = p.a_rows ? codes : from_row(codes, i);
      args.rows = p.a_rows ? p.a_rows + i : nullptr;
      args.out = p.c + i * p.ldc + q * kPanelCols;
      args.c_old = p.add ? args.out : nullptr;
      tiles[height][width](args);
    }
  }
}

void run_block(IntBlockFn fn, const GemmParams& p, const CodedRows& codes, int64_t m0, int64_t m1,
               int64_t q0, int64_t q1) {
  const int64_t groups = codes.groups, bytes = groups * quant_group_bytes(p.b.type);
  fn({.a = p.a_rows ? codes : from_row(codes, m0),
      .rows = p.a_rows ? p.a_rows + m0 : nullptr,
      .b = static_cast<const uint8_t*>(p.b.data) + q0 * bytes,
      .scales = static_cast<const uint16_t*>(p.b.scales) + q0 * groups * kPanelCols,
      .out = p.c + m0 * p.ldc + q0 * kPanelCols,
      .ld_out = p.ldc,
      .m = m1 - m0,
      .cols = std::min(q1 * kPanelCols, p.b.n) - q0 * kPanelCols,
      .add = p.add});
}

// A block of rows (all of them if there is one) of the panels of tasks that differ by it alone.
void run_panels(const IntTable& t, const Product& product, const CodedRows& codes, int64_t rb,
                int64_t q0, int64_t q1) {
  const GemmParams& p = product.p;
  const int64_t tiles = ceil_div(p.m, kBlockRows), blocks = product.cut.row_blocks;
  const int64_t m0 = tiles * rb / blocks * kBlockRows;  // blocks differ by at most one tile
  const int64_t m1 = std::min(tiles * (rb + 1) / blocks * kBlockRows, p.m);
  const IntBlockFn block = p.b.type == PackedType::kQ8 ? t.block_q8 : t.block_q4;
  const int64_t rest = (m1 - m0) % kBlockRows;
  const int64_t middle = !block ? m0 : rest >= kLeastBlockRows ? m1 : m1 - rest;
  if (middle > m0) run_block(block, p, codes, m0, middle, q0, q1);
  run_tiles(t, p, codes, middle, m1, q0, q1);
}

// Tasks of a product. Neighbouring ones share their weights.
void run_product(const IntTable& t, const Product& product, const CodedRows& codes, int64_t begin,
                 int64_t end) {
  const Cut& cut = product.cut;
  const int64_t panels = ceil_div(product.p.b.n, kPanelCols);
  const int64_t each = cut.row_blocks > 1 ? 1 : end - begin;
  for (int64_t task = begin; task < end; task += each) {
    const int64_t q = task / cut.row_blocks * cut.panels_each;
    run_panels(t, product, codes, task % cut.row_blocks, q,
               std::min(q + each * cut.panels_each, panels));
  }
}

// fn(item, begin, end) for those of an item's tasks that are in [begin, end) of a list of items
// with their first tasks.
template <class Item, class F>
void for_tasks(const Item* items, int64_t count, int64_t begin, int64_t end, const F& fn) {
  const auto after = [](int64_t task, const Item& item) { return task < item.first_task; };
  const Item* item = std::upper_bound(items, items + count, begin, after) - 1;
  for (; begin < end; ++item) {
    const int64_t stop = item + 1 == items + count ? end : std::min(end, item[1].first_task);
    if (begin < stop) fn(*item, begin - item->first_task, stop - item->first_task);
    begin = stop;
  }
}

void Region::add(const GemmParams& p) {
  if (p.m <= 0 || p.b.n <= 0) return;
  const int64_t rows = p.a_rows ? int64_t{*std::max_element(p.a_rows, p.a_rows + p.m)} + 1 : p.m;
  size_t s = 0;
  for (; s < sources.size(); ++s) {
    const Source& known = sources[s];
    if (known.code.a == p.a && known.code.lda == p.lda && known.code.k == p.b.k &&
        known.type == p.b.type)
      break;
  }
  if (s == sources.size())
    sources.push_back({.code = {.a = p.a,
                                .lda = p.lda,
                                .k = p.b.k,
                                .offset = p.b.type == PackedType::kQ8 ? 128 : 8},
                       .type = p.b.type});
  sources[s].code.end = std::max(sources[s].code.end, rows);
  products.push_back({.p = p, .source = s});
}

// Room for the codes of all sources, cut into tasks. Returns how many numbers there are to code.
int64_t Region::place_codes() {
  int64_t bytes = 0, tasks = 0, numbers = 0;
  for (const Source& s : sources)
    bytes += s.code.end * coded_bytes(ceil_div(s.code.k, kQuantGroup)) + 64;
  char* at = room.take(bytes);
  for (Source& s : sources) {
    const int64_t groups = ceil_div(s.code.k, kQuantGroup), n = s.code.end * groups;
    s.code.to = {.codes = reinterpret_cast<int8_t*>(at),
                 .scales = reinterpret_cast<float*>(at + n * kQuantGroup),
                 .shifts = reinterpret_cast<int32_t*>(at + n * (kQuantGroup + 4)),
                 .groups = groups};
    at += ceil_div(n * coded_bytes(1), 64) * 64;
    s.first_task = tasks;
    tasks += s.tasks();
    numbers += s.code.end * s.code.k;
  }
  return numbers;
}

// Cuts the products into tasks of about so many multiply-adds.
void Region::cut(const IntTable& t, int64_t target_work) {
  int64_t tasks = 0;
  for (Product& q : products) {
    q.cut = cut_product(t, q.p.m, q.p.b.n, q.p.b.k, target_work);
    q.first_task = tasks;
    tasks += q.cut.tasks();
  }
}

// How a thread takes part: all that it needs to know of the plan in one line of the cache, since
// what the caller has just written comes late, line by line. Whatever else it will read of it is
// asked for at once.
struct alignas(64) Tasks {
  const IntTable* table;
  const Product* products;
  int64_t num_products;
  const Source* sources;
  const int8_t* codes;  // of the first source, before those of the others
  Pieces pieces;

  void operator()(int64_t begin, int64_t end) const {
    for_tasks(products, num_products, begin, end,
              [&](const Product& q, int64_t first, int64_t last) {
                run_product(*table, q, sources[q.source].code.to, first, last);
              });
  }
  void operator()(int64_t piece, int64_t, int thread) const {
    if (thread != 0) ask_for_plan();
    pieces.run(piece, *this);
  }

 private:
  void ask_for_plan() const {
    ask(products, num_products * int64_t{sizeof(Product)});
    ask(sources, sizeof(Source));
    ask(codes, kAskedCodes);
  }
  static void ask(const void* from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64)
      __builtin_prefetch(static_cast<const char*>(from) + at);
  }
};

// What is to be done once all is cut.
struct Plan {
  Tasks tasks;
  int64_t num_tasks, code_tasks;
  bool serial, few_rows;
  bool code_first;  // by the caller: too little to share
};

Plan Region::plan(const ThreadPool& pool) {
  const IntTable& t = int_table();
  int64_t work = 0;
  bool few_rows = false;  // a product of few rows costs what reading its weights does
  for (const Product& q : products) {
    work += q.p.m * q.p.b.n * q.p.b.k;
    few_rows = few_rows || q.p.m <= t.max_rows;
  }
  const bool serial = pool.size() == 1 || work <= kSerialWork;
  const int64_t numbers = place_codes();
  cut(t, serial     ? INT64_MAX
         : few_rows ? kLeastTask
                    : std::max(work / (pool.size() * kTasksPerThread), kLeastTask));
  const int64_t tasks = products.back().first_task + products.back().cut.tasks();
  return {.tasks = {&t, products.data(), std::ssize(products), sources.data(),
                    sources[0].code.to.codes, Pieces(tasks, work, pool.size())},
          .num_tasks = tasks,
          .code_tasks = sources.back().first_task + sources.back().tasks(),
          .serial = serial,
          .few_rows = few_rows,
          .code_first = serial || numbers <= kCodedEach};
}

void Region::code(int64_t begin, int64_t end) const {
  for_tasks(sources.data(), std::ssize(sources), begin, end,
            [](const Source& s, int64_t first, int64_t last) {
              CodeArgs part = s.code;
              part.begin = first * s.rows_each();
              part.end = std::min(last * s.rows_each(), s.code.end);
              int_table().code_rows(part);
            });
}

void Region::run(const Plan& p, ThreadPool& pool) {
  if (p.code_first) code(0, p.code_tasks);
  if (p.serial) return p.tasks(0, p.num_tasks);
  const auto code_some = [&](int64_t begin, int64_t end, int) { code(begin, end); };
  const auto run_some = [&](int64_t begin, int64_t end, int) { p.tasks(begin, end); };
  const ThreadPool::Phase coding{p.code_first ? 0 : p.code_tasks, 1, code_some};
  if (!p.few_rows) return pool.parallel_phases({{coding, {p.num_tasks, 1, run_some}}});
  pool.parallel_phases({{coding, {p.tasks.pieces.size(), 1, p.tasks}}});
}

void Region::run(ThreadPool& pool) {
  if (!products.empty()) run(plan(pool), pool);
}

// Neither may be empty. The rows of `then` are coded by the thread that ends `first`.
void run_chain(Region& first, Region& then, ThreadPool& pool) {
  const Plan p = first.plan(pool), q = then.plan(pool);
  const auto fits = [](const Plan& x) { return !x.serial && x.few_rows && x.code_first; };
  if (fits(p) && fits(q)) {
    first.code(0, p.code_tasks);
    const auto code = [&](int64_t, int64_t, int) { then.code(0, q.code_tasks); };
    return pool.parallel_phases(
        {{{p.tasks.pieces.size(), 1, p.tasks}, {1, 1, code}, {q.tasks.pieces.size(), 1, q.tasks}}});
  }
  first.run(p, pool);
  then.run(q, pool);
}

// Of this thread; the second one is for what follows in a chain.
Region& empty_region(bool second = false) {
  static thread_local Region regions[2];
  Region& region = regions[second ? 1 : 0];
  region.clear();
  return region;
}

}  // namespace

const IntTable& int_table() { return *int_tables().front(); }

void int_gemm_many(const GemmParams* p, int64_t count, ThreadPool& pool) {
  Region& region = empty_region();
  for (int64_t i = 0; i < count; ++i)
    if (is_quantized(p[i].b.type)) region.add(p[i]);
  region.run(pool);
}

void int_gemm_chain(std::span<const GemmParams> first, std::span<const GemmParams> then,
                    ThreadPool& pool) {
  Region &a = empty_region(), &b = empty_region(true);
  for (const GemmParams& p : first) a.add(p);
  for (const GemmParams& p : then) b.add(p);
  if (!a.products.empty() && !b.products.empty()) return run_chain(a, b, pool);
  a.run(pool);
  b.run(pool);
}

void int_gemm_grouped(const GroupedGemmParams& p, ThreadPool& pool) {
  Region& region = empty_region();
  for (int64_t e = 0; e < p.groups; ++e) {
    FM_CHECK(p.b[e].type == p.b[0].type && p.b[e].k == p.b[0].k, "group {} has other weights", e);
    const int64_t first = p.offsets[e];
    region.add({.a = p.a_rows ? p.a : p.a + first * p.lda,
                .lda = p.lda,
                .a_rows = p.a_rows ? p.a_rows + first : nullptr,
                .b = p.b[e],
                .c = p.c + first * p.ldc,
                .ldc = p.ldc,
                .m = p.offsets[e + 1] - first,
                .add = p.add});
  }
  region.run(pool);
}

}  // namespace fathom::simd
