// Cross entropy over logits, with its gradient.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/cross_entropy.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

// sum_i exp(logit[i] - top); the terms go to `terms` when it is not null (it may be the logits).
// Lanes hold blocks of kBlock elements, the blocks' sums are added in f64.
double exp_sum(const float* logit, float top, int64_t W, float* terms) {
  constexpr int64_t kBlock = 4096;
  double sum = 0;
  for (int64_t first = 0; first < W; first += kBlock) {
    V16 lanes = zero16();
    sweep(std::min(kBlock, W - first), [&](int64_t i, auto part) HWY_ATTR {
      const V16 e = exp16(load16(logit + first + i, part) - splat(top));
      lanes = lanes + pad(e, part, 0);
      if (terms) store16(e, terms + first + i, part);
    });
    sum += static_cast<double>(sum16(lanes));
  }
  return sum;
}

void cross_entropy_rows(const CrossEntropy& a, int64_t begin, int64_t end) {
  const int64_t W = a.logits.dim[1];
  for (int64_t t = begin; t < end; ++t) {
    const float* logit = row(a.logits, t);
    float* d = a.dlogits ? row(a.dlogits, t) : nullptr;
    const int32_t target = a.target[t];
    const double own = target < 0 ? 0 : static_cast<double>(logit[target]);
    V16 lanes = splat(-HUGE_VALF);
    sweep(W, [&](int64_t i, auto part) HWY_ATTR {
      lanes = max16(pad(load16(logit + i, part), part, -HUGE_VALF), lanes);
    });
    const float top = largest16(lanes);
    const double sum = exp_sum(logit, top, W, target < 0 ? nullptr : d);
    const double lse = static_cast<double>(top) + std::log(sum);
    if (a.lse) a.lse.as<float>()[t] = static_cast<float>(lse);
    a.nll.as<float>()[t] = target < 0 ? 0 : static_cast<float>(lse - own);
    if (!d) continue;
    const V16 scale = splat(target < 0 ? 0 : static_cast<float>(a.weight[t] / sum));
    sweep(W, [&](int64_t i, auto part) HWY_ATTR {
      store16(target < 0 ? zero16() : load16(d + i, part) * scale, d + i, part);
    });
    if (target >= 0) d[target] -= static_cast<float>(a.weight[t]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(cross_entropy_rows);

void cross_entropy(const Exec& exec, const CrossEntropy& a) {
  if (a.logits.dtype != DType::kF32) return ref::cross_entropy(exec, a);
  for_rows(exec, a.logits.dim[0], a.logits.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(cross_entropy_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
