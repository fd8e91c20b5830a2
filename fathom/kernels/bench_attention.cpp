#include "fathom/kernels/bench_attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double percentile(std::vector<double> v, double share) {
  std::sort(v.begin(), v.end());
  return v[static_cast<size_t>(share * static_cast<double>(v.size() - 1))];
}

double spread(const std::vector<double>& v) {
  return (percentile(v, 0.9) - percentile(v, 0.1)) / percentile(v, 0.5);
}

// Even numbers in [-1, 1): cheap, and as good as normal ones for timing.
void fill(const View& v, uint64_t stream) {
  Rng rng(17, "bench attention", stream);
  float* p = v.as<float>();
  for (int64_t i = 0; i < v.numel(); ++i)
    p[i] = static_cast<float>(static_cast<int32_t>(rng.next() >> 32)) * 0x1p-31f;
}

// The rows of a tensor as pages of one sequence.
struct Pages {
  Tensor rows;
  std::vector<const void*> page;
  int32_t first = 0;
  Pages(Arena& arena, int64_t n, int64_t width, bool bf16, uint64_t stream)
      : rows(empty(arena, DType::kF32, {n, width})) {
    fill(rows, stream);
    if (bf16) {
      Tensor half = empty(arena, DType::kBF16, {n, width});
      convert(rows, half);
      rows = half;
    }
    for (int64_t p = 0; p < n; p += kPageTokens) page.push_back(rows.view.at_element(p * width));
  }
  KeyPages ref() const { return {page.data(), &first, rows.view.dim[1], rows.view.dtype}; }
};

}  // namespace

struct AttentionBench::Data {
  const Kernels& kernels;
  Exec exec;
  AttentionBenchShape s;
  Pages latent, index;
  double scale;

  // Queries of `n` tokens and room for what is computed from them.
  struct Step {
    int32_t first_row[2], first_pos;
    Tensor q_lat, q_pe, q_idx, w_idx, sel, z;
    QueryRows rows() const { return {1, first_row, &first_pos}; }
  };

  Step step(int64_t n, int64_t position) const {
    Arena& arena = *exec.arena;
    Step t{.first_row = {0, static_cast<int32_t>(n)},
           .first_pos = static_cast<int32_t>(position - n),
           .q_lat = empty(arena, DType::kF32, {n, s.H, s.C}),
           .q_pe = empty(arena, DType::kF32, {n, s.H, s.R}),
           .q_idx = empty(arena, DType::kF32, {n, s.J, s.I}),
           .w_idx = empty(arena, DType::kF32, {n, s.J}),
           .sel = empty(arena, DType::kI32, {n, s.K}),
           .z = empty(arena, DType::kF32, {n, s.H, s.C})};
    uint64_t stream = 10;
    for (const Tensor* x : {&t.q_lat, &t.q_pe, &t.q_idx, &t.w_idx}) fill(*x, stream++);
    for (const Tensor* x : {&t.q_idx, &t.w_idx}) correlate(*x);
    return t;
  }
  // Rows of independent numbers become alike from row to row, with the same variance.
  void correlate(const View& x) const {
    const auto before = static_cast<float>(s.alike);
    const auto own = static_cast<float>(std::sqrt(1 - s.alike * s.alike));
    const int64_t width = x.numel() / x.dim[0];
    float* p = x.as<float>();
    for (int64_t i = width; i < x.numel(); ++i) p[i] = own * p[i] + before * p[i - width];
  }
  double shared(const Step& t) const {
    const int64_t n = t.sel.view.dim[0];
    const int32_t* sel = t.sel.as<int32_t>();
    int64_t same = 0, all = 0;
    for (int64_t i = 1; i < n; ++i) {
      const int32_t *row = sel + i * s.K, *end = std::find(row, row + s.K, -1);
      const int32_t *before = row - s.K, *before_end = std::find(before, row, -1);
      same += std::count_if(
          row, end, [&](int32_t key) { return std::binary_search(before, before_end, key); });
      all += end - row;
    }
    return all > 0 ? static_cast<double>(same) / static_cast<double>(all) : 0;
  }
  void attend(const Kernels& k, const Step& t, bool sparse) const {
    k.attention(exec, {.q_lat = t.q_lat,
                       .q_pe = t.q_pe,
                       .rows = t.rows(),
                       .keys = latent.ref(),
                       .sel = sparse ? t.sel.view : View{},
                       .scale = scale,
                       .z = t.z});
  }
  void select(const Kernels& k, const Step& t) const {
    k.index_select(
        exec, {.q = t.q_idx, .w = t.w_idx, .rows = t.rows(), .keys = index.ref(), .sel = t.sel});
  }
};

AttentionBench::AttentionBench(const Kernels& kernels, const Exec& exec,
                               const AttentionBenchShape& shape, int64_t max_position)
    : d_(new Data{.kernels = kernels,
                  .exec = exec,
                  .s = shape,
                  .latent = {*exec.arena, max_position, shape.C + shape.R, shape.bf16_keys, 1},
                  .index = {*exec.arena, max_position, shape.I, shape.bf16_keys, 2},
                  .scale = 1 / std::sqrt(static_cast<double>(shape.C + shape.R))}) {}

AttentionBench::~AttentionBench() = default;

AttentionBenchRow AttentionBench::run(const AttentionBenchCase& c, double seconds) {
  const int64_t n = c.decode ? 1 : std::min(c.chunk, c.position);
  FM_CHECK(c.position >= 1 && c.position <= d_->latent.rows.view.dim[0], "position {}", c.position);
  const Data::Step t = d_->step(n, c.position);
  std::vector<double> dense, chosen, gathered, sparse;
  const double end_s = now_s() + seconds;
  for (int i = 0; i < 6 || now_s() < end_s; ++i) {
    const double t0 = now_s();
    d_->attend(d_->kernels, t, false);
    const double t1 = now_s();
    d_->select(d_->kernels, t);
    const double t2 = now_s();
    d_->attend(d_->kernels, t, true);
    const double t3 = now_s();
    if (i == 0) continue;  // warms caches and the arena
    const double us = 1e6 / static_cast<double>(n);
    dense.push_back((t1 - t0) * us);
    chosen.push_back((t2 - t1) * us);
    gathered.push_back((t3 - t2) * us);
    sparse.push_back((t3 - t1) * us);
  }
  return {.at = c,
          .repetitions = static_cast<int>(dense.size()),
          .dense_us = percentile(dense, 0.5),
          .select_us = percentile(chosen, 0.5),
          .gathered_us = percentile(gathered, 0.5),
          .sparse_us = percentile(sparse, 0.5),
          .dense_best_us = percentile(dense, 0),
          .sparse_best_us = percentile(sparse, 0),
          .dense_spread = spread(dense),
          .sparse_spread = spread(sparse),
          .shared = d_->shared(t)};
}

double AttentionBench::check() {
  const Kernels& ref = cpu_ref();
  AttentionBenchShape small = d_->s;
  small.K = std::min<int64_t>(small.K, 50);
  AttentionBench other(d_->kernels, d_->exec, small, 300);
  const Data& d = *other.d_;
  double worst = 0;
  const auto compare = [&](const Data::Step& t, bool sparse) {
    d.attend(d.kernels, t, sparse);
    std::vector<float> got(t.z.as<float>(), t.z.as<float>() + t.z.view.numel());
    d.attend(ref, t, sparse);
    double top = 0, error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const auto want = static_cast<double>(t.z.as<float>()[i]);
      top = std::max(top, std::abs(want));
      const double e = std::abs(static_cast<double>(got[i]) - want);
      if (!(e <= error)) error = e;
    }
    const double relative = error / top;
    if (!(relative <= worst)) worst = relative;
  };
  // The K-th score of both choices: rounding may swap keys of nearly equal score, not more.
  const auto compare_choice = [&](const Data::Step& t, int64_t n, int64_t position) {
    const Tensor scores = empty(*d.exec.arena, DType::kF32, {n, position});
    ref.index_scores(
        d.exec,
        {.q = t.q_idx, .w = t.w_idx, .rows = t.rows(), .keys = d.index.ref(), .scores = scores});
    const auto lowest = [&](int64_t row) {
      double low = INFINITY;
      for (int64_t k = 0; k < small.K; ++k) {
        const int32_t s = t.sel.as<int32_t>()[row * small.K + k];
        if (s >= 0)
          low = std::min(low, static_cast<double>(scores.as<float>()[row * position + s]));
      }
      return low;
    };
    d.select(d.kernels, t);
    std::vector<double> got;
    for (int64_t i = 0; i < n; ++i) got.push_back(lowest(i));
    d.select(ref, t);
    for (int64_t i = 0; i < n; ++i) {
      const double e = std::abs(got[static_cast<size_t>(i)] - lowest(i));
      if (!(e <= worst)) worst = e;
    }
  };
  for (const int64_t n : {int64_t{1}, int64_t{100}}) {
    const Data::Step t = d.step(n, 300);
    compare(t, false);
    compare_choice(t, n, 300);
    compare(t, true);
  }
  return worst;
}

}  // namespace fathom
