// Weighted sum of expert outputs, and the adjoint of the row gather that feeds the experts.
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
HWY_EXPORT(gather_bwd_rows);

void combine(const Exec& exec, const Combine& a) {
  if (a.y.dtype != DType::kF32) return ref::combine(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1] * a.weights.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(combine_rows)(a, begin, end);
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
