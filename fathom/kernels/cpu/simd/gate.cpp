// Router: scores, group-limited selection, gate weights, and the adjoint through the scores.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/gate.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void score_row(ScoringFunc scoring, const float* logit, int64_t E, float* score) {
  if (scoring == ScoringFunc::kSigmoid) {
    sweep(E, [&](int64_t i, auto part)
                 HWY_ATTR { store16(sigmoid16(load16(logit + i, part)), score + i, part); });
    return;
  }
  V16 top = splat(-HUGE_VALF), sum = zero16();
  sweep(E, [&](int64_t i, auto part)
               HWY_ATTR { top = max16(pad(load16(logit + i, part), part, -HUGE_VALF), top); });
  const V16 largest = splat(largest16(top));
  sweep(E, [&](int64_t i, auto part) HWY_ATTR {
    const V16 e = exp16(load16(logit + i, part) - largest);
    sum = sum + pad(e, part, 0);
    store16(e, score + i, part);
  });
  const V16 total = splat(sum16(sum));
  sweep(E, [&](int64_t i, auto part)
               HWY_ATTR { store16(load16(score + i, part) / total, score + i, part); });
}

// z = score + bias, NaN as -inf
void selection_row(const float* score, const float* bias, int64_t E, float* z) {
  sweep(E, [&](int64_t i, auto part) HWY_ATTR {
    V16 v = load16(score + i, part);
    if (bias) v = v + load16(bias + i, part);
    store16(select(v == v, v, splat(-HUGE_VALF)), z + i, part);
  });
}

// dlogits (+)= s (dscore - dot), or dscore s (1 - s); dscore null: only what `add` false must set
void dlogits_row(const GateBwd& a, const float* score, const float* dscore, float dot, float* out) {
  sweep(a.scores.dim[1], [&](int64_t i, auto part) HWY_ATTR {
    const V16 s = load16(score + i, part), ds = dscore ? load16(dscore + i, part) : zero16();
    const V16 d =
        a.scoring == ScoringFunc::kSigmoid ? ds * (s * (splat(1) - s)) : s * (ds - splat(dot));
    store16(a.add ? load16(out + i, part) + d : d, out + i, part);
  });
}
float dot_row(const float* x, const float* y, int64_t n) {
  V16 sum = zero16();
  sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { sum = fused(load16(x + i, part), load16(y + i, part), sum); });
  return sum16(sum);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <utility>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/kernels/cpu/simd/top_k.h"

namespace fathom::simd {

HWY_EXPORT(score_row);
HWY_EXPORT(selection_row);
HWY_EXPORT(dlogits_row);
HWY_EXPORT(dot_row);

namespace {

constexpr float kTiny =
    1e-20f;  // keeps the normalisation finite when all selected scores underflow

constexpr int64_t kFew = 1024;  // floats of scratch that the stack takes

struct Scratch {
  float* z;     // [E]
  float* best;  // [max(A, n_group)]
};

// Sets z to -inf in every group that is not among the best `topk_group`.
void limit_groups(const Gate& a, const Scratch& s) {
  const int64_t size = a.logits.dim[1] / a.n_group;
  for (int64_t i = 0; i < a.n_group; ++i) {
    float first = -HUGE_VALF, second = -HUGE_VALF;
    for (const float* z = s.z + i * size; z != s.z + (i + 1) * size; ++z) {
      if (*z > first)
        second = std::exchange(first, *z);
      else
        second = std::max(second, *z);
    }
    s.best[i] = a.method == TopkMethod::kNoauxTc && size > 1 ? first + second : first;
  }
  // Ranks follow (value descending, index ascending).
  for (int64_t i = 0; i < a.n_group; ++i) {
    int64_t rank = 0;
    for (int64_t j = 0; j < a.n_group; ++j)
      rank += s.best[j] > s.best[i] || (s.best[j] == s.best[i] && j < i) ? 1 : 0;
    if (rank >= a.topk_group) std::fill_n(s.z + i * size, size, -HUGE_VALF);
  }
}

void gate_row(const Gate& a, int64_t t, const Scratch& s) {
  const int64_t E = a.logits.dim[1], A = a.experts.dim[1];
  float *score = row(a.scores, t), *weight = row(a.weights, t);
  int32_t* expert = static_cast<int32_t*>(a.experts.data) + t * a.experts.stride[0];
  HWY_DYNAMIC_DISPATCH(score_row)(a.scoring, row(a.logits, t), E, score);
  if (!a.forced) {
    HWY_DYNAMIC_DISPATCH(selection_row)(score, a.bias ? a.bias.as<float>() : nullptr, E, s.z);
    if (a.method != TopkMethod::kGreedy && a.n_group > 1) limit_groups(a, s);
    top_k(s.z, E, A, expert, s.best);
  }
  float sum = kTiny;
  for (int64_t k = 0; k < A; ++k) sum += score[expert[k]];
  if (!a.norm_topk_prob) sum = 1;
  const float factor = static_cast<float>(a.routed_scaling_factor);
  for (int64_t k = 0; k < A; ++k) weight[k] = score[expert[k]] / sum * factor;
}

void gate_bwd_row(const GateBwd& a, int64_t t) {
  const int64_t E = a.scores.dim[1], A = a.weights.dim[1];
  const float *score = row(a.scores, t), *elsewhere = a.dscores ? row(a.dscores, t) : nullptr;
  const float *weight = row(a.weights, t), *dweight = a.dweights ? row(a.dweights, t) : nullptr;
  const int32_t* expert = static_cast<const int32_t*>(a.experts.data) + t * a.experts.stride[0];
  const bool softmax = a.scoring == ScoringFunc::kSoftmax;
  const float factor = static_cast<float>(a.routed_scaling_factor);
  float* out = row(a.dlogits, t);
  float sum = 1, mean = 0;  // dscore of a selected expert = (dweight factor - mean) / sum
  if (dweight && a.norm_topk_prob) {
    sum = kTiny;
    for (int64_t k = 0; k < A; ++k) sum += score[expert[k]];
    for (int64_t k = 0; k < A; ++k) mean += dweight[k] * weight[k];
  }
  float dot = elsewhere && softmax ? HWY_DYNAMIC_DISPATCH(dot_row)(elsewhere, score, E) : 0;
  if (dweight && softmax)
    for (int64_t k = 0; k < A; ++k) dot += (dweight[k] * factor - mean) / sum * score[expert[k]];
  if (elsewhere || softmax || !a.add)
    HWY_DYNAMIC_DISPATCH(dlogits_row)(a, score, elsewhere, dot, out);
  for (int64_t k = 0; dweight && k < A; ++k) {
    const float s = score[expert[k]], ds = (dweight[k] * factor - mean) / sum;
    out[expert[k]] += softmax ? s * ds : ds * s * (1 - s);
  }
}

}  // namespace

void gate(const Exec& exec, const Gate& a) {
  if (a.logits.dtype != DType::kF32) return ref::gate(exec, a);
  const int64_t E = a.logits.dim[1], A = a.experts.dim[1], best = std::max(A, a.n_group);
  FM_CHECK(A <= E && a.n_group >= 1 && E % a.n_group == 0 && a.topk_group <= a.n_group,
           "{} of {} experts in {} of {} groups", A, E, a.topk_group, a.n_group);
  const int64_t size = (E + best + 15) / 16 * 16;  // floats of scratch per thread
  float few[kFew];
  const bool large = exec.pool->size() * size > kFew;
  const auto block =
      large ? exec.arena->allocate(exec.pool->size() * size * static_cast<int64_t>(sizeof(float)))
            : nullptr;
  float* scratch = large ? reinterpret_cast<float*>(block.get()) : few;
  const int64_t grain = std::max<int64_t>(1, kChunkElements / (8 * E));  // selection is scalar
  exec.pool->parallel_for(a.logits.dim[0], grain, [&](int64_t begin, int64_t end, int thread) {
    float* z = scratch + thread * size;
    for (int64_t t = begin; t < end; ++t) gate_row(a, t, {z, z + E});
  });
}

void gate_bwd(const Exec& exec, const GateBwd& a) {
  if (a.scores.dtype != DType::kF32) return ref::gate_bwd(exec, a);
  for_rows(exec, a.scores.dim[0], a.scores.dim[1], [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) gate_bwd_row(a, t);
  });
}

}  // namespace fathom::simd
#endif
