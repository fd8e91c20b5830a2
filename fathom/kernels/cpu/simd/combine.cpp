// Weighted sum of expert outputs, its adjoint, and the adjoint of the row gather that feeds the
// experts.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/combine.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void combine_rows(const Combine& a, int64_t begin, int64_t end) {
  const int64_t A = a.weights.dim[1];
  for (int64_t t = begin; t < end; ++t) {
    const float* weight = row(a.weights, t);
    const int32_t* slot = a.slot + t * A;
    float* y = row(a.y, t);
    sweep(a.y.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      V16 sum = zero16();
      for (int64_t k = 0; k < A; ++k)
        sum = fused(splat(weight[k]), load16(row(a.x, slot[k]) + i, part), sum);
      store16(a.add ? load16(y + i, part) + sum : sum, y + i, part);
    });
  }
}

void combine_bwd_rows(const CombineBwd& a, int64_t begin, int64_t end) {
  const int64_t A = a.weights.dim[1], D = a.dy.dim[1];
  for (int64_t t = begin; t < end; ++t) {
    const float *weight = row(a.weights, t), *dy = row(a.dy, t);
    for (int64_t k = 0; k < A; ++k) {
      const int32_t slot = a.slot[t * A + k];
      if (a.dx) {
        float* dx = row(a.dx, slot);
        sweep(D, [&](int64_t i, auto part)
                     HWY_ATTR { store16(splat(weight[k]) * load16(dy + i, part), dx + i, part); });
      }
      if (!a.dweights) continue;
      const float* x = row(a.x, slot);
      V16 dot = zero16();
      sweep(D, [&](int64_t i, auto part)
                   HWY_ATTR { dot = fused(load16(dy + i, part), load16(x + i, part), dot); });
      float* out = row(a.dweights, t) + k;
      *out = a.add_dweights ? *out + sum16(dot) : sum16(dot);
    }
  }
}

void gather_bwd_rows(const GatherBwd& a, int64_t begin, int64_t end) {
  const int64_t A = a.num_experts_per_tok;
  for (int64_t t = begin; t < end; ++t) {
    const int32_t* slot = a.slot + t * A;
    float* dx = row(a.dx, t);
    sweep(a.dx.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      V16 sum = zero16();
      for (int64_t k = 0; k < A; ++k) sum = sum + load16(row(a.dxp, slot[k]) + i, part);
      store16(a.add ? load16(dx + i, part) + sum : sum, dx + i, part);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(combine_rows);
HWY_EXPORT(combine_bwd_rows);
HWY_EXPORT(gather_bwd_rows);

void combine(const Exec& exec, const Combine& a) {
  if (a.y.dtype != DType::kF32) return ref::combine(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1] * a.weights.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(combine_rows)(a, begin, end);
  });
}

void combine_bwd(const Exec& exec, const CombineBwd& a) {
  if (a.dy.dtype != DType::kF32) return ref::combine_bwd(exec, a);
  for_rows(exec, a.dy.dim[0], a.dy.dim[1] * a.weights.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(combine_bwd_rows)(a, begin, end);
  });
}

void gather_bwd(const Exec& exec, const GatherBwd& a) {
  if (a.dx.dtype != DType::kF32) return ref::gather_bwd(exec, a);
  for_rows(exec, a.dx.dim[0], a.dx.dim[1] * a.num_experts_per_tok, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gather_bwd_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
