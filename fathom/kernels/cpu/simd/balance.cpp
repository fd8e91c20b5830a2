// Sequence-wise balance loss (DeepSeek-V3 report, eq. 17-20) and its gradient to the scores.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/balance.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

// sums [2]: of the scores of a row, and of the scores times f
void balance_row(const float* score, const float* f, int64_t E, float* sums) {
  V16 sum = zero16(), dot = zero16();
  sweep(E, [&](int64_t i, auto part) HWY_ATTR {
    const V16 s = load16(score + i, part);
    sum = sum + s;
    dot = fused(s, load16(f + i, part), dot);
  });
  sums[0] = sum16(sum);
  sums[1] = sum16(dot);
}

// dscore (+)= scale (f - mean)
void balance_bwd_row(const float* f, float mean, float scale, int64_t E, bool add, float* dscore) {
  sweep(E, [&](int64_t i, auto part) HWY_ATTR {
    const V16 d = (load16(f + i, part) - splat(mean)) * splat(scale);
    store16(add ? load16(dscore + i, part) + d : d, dscore + i, part);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/kernels/cpu/simd/top_k.h"

namespace fathom::simd {

HWY_EXPORT(balance_row);
HWY_EXPORT(balance_bwd_row);

namespace {

struct Scratch {
  float* f;        // [E]
  float* best;     // [A]
  int32_t* index;  // [A]
};

// The loss of one sequence; its gradient goes to dscores.
double sequence(const Balance& a, int64_t begin, int64_t end, double scale, const Scratch& s) {
  const int64_t E = a.scores.dim[1], A = a.num_experts_per_tok;
  const double rows = static_cast<double>(end - begin);
  std::fill_n(s.f, E, 0.0f);
  for (int64_t t = begin; t < end; ++t) {
    top_k(row(a.scores, t), E, A, s.index, s.best);
    for (int64_t k = 0; k < A; ++k) s.f[s.index[k]] += 1;
  }
  const double unit = static_cast<double>(E) / (static_cast<double>(A) * rows);
  for (int64_t e = 0; e < E; ++e) s.f[e] = static_cast<float>(static_cast<double>(s.f[e]) * unit);
  double loss = 0;
  for (int64_t t = begin; t < end; ++t) {
    float sums[2];
    HWY_DYNAMIC_DISPATCH(balance_row)(row(a.scores, t), s.f, E, sums);
    const float mean = sums[1] / sums[0];
    loss += static_cast<double>(mean) / rows;
    if (a.dscores) HWY_DYNAMIC_DISPATCH(balance_bwd_row)
    (s.f, mean, static_cast<float>(scale / rows) / sums[0], E, a.add, row(a.dscores, t));
  }
  return loss;
}

}  // namespace

void balance(const Exec& exec, const Balance& a) {
  if (a.scores.dtype != DType::kF32) return ref::balance(exec, a);
  const int64_t E = a.scores.dim[1], A = a.num_experts_per_tok;
  const int64_t size = (E + 2 * A + 15) / 16 * 16;  // floats of scratch per thread
  const double inv_num = 1 / static_cast<double>(a.num_seq);
  const auto block =
      exec.arena->allocate(exec.pool->size() * size * static_cast<int64_t>(sizeof(float)));
  const auto losses = exec.arena->allocate(a.num_seq * static_cast<int64_t>(sizeof(double)));
  float* scratch = reinterpret_cast<float*>(block.get());
  double* loss = reinterpret_cast<double*>(losses.get());
  exec.pool->parallel_for(a.num_seq, 1, [&](int64_t begin, int64_t end, int thread) {
    float* f = scratch + thread * size;
    const Scratch s{f, f + E, reinterpret_cast<int32_t*>(f + E + A)};
    for (int64_t b = begin; b < end; ++b)
      loss[b] = a.first_row[b + 1] > a.first_row[b]
                    ? sequence(a, a.first_row[b], a.first_row[b + 1], a.weight * inv_num, s)
                    : 0;
  });
  *a.loss = 0;
  for (int64_t b = 0; b < a.num_seq; ++b) *a.loss += inv_num * loss[b];
}

}  // namespace fathom::simd
#endif
