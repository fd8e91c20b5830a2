// SwiGLU and its adjoint.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/swiglu.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void swiglu_rows(const Swiglu& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float *gate = row(a.gate, t), *up = row(a.up, t);
    float* y = row(a.y, t);
    sweep(a.y.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      store16(silu16(load16(gate + i, part)) * load16(up + i, part), y + i, part);
    });
  }
}

void swiglu_bwd_rows(const SwigluBwd& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float *gate = row(a.gate, t), *up = row(a.up, t), *dy = row(a.dy, t);
    float* dgate = a.dgate ? row(a.dgate, t) : nullptr;
    float* dup = a.dup ? row(a.dup, t) : nullptr;
    sweep(a.dy.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      const V16 g = load16(gate + i, part), d = load16(dy + i, part), s = sigmoid16(g);
      if (dgate) {
        const V16 slope = s * fused(g, splat(1) - s, splat(1));
        const V16 rest = a.add ? load16(dgate + i, part) : zero16();
        store16(fused(d * load16(up + i, part), slope, rest), dgate + i, part);
      }
      if (dup) {
        const V16 rest = a.add ? load16(dup + i, part) : zero16();
        store16(fused(d, g * s, rest), dup + i, part);
      }
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

HWY_EXPORT(swiglu_rows);
HWY_EXPORT(swiglu_bwd_rows);

void swiglu(const Exec& exec, const Swiglu& a) {
  if (a.y.dtype != DType::kF32) return ref::swiglu(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_rows)(a, begin, end);
  });
}

void swiglu_bwd(const Exec& exec, const SwigluBwd& a) {
  if (a.dy.dtype != DType::kF32) return ref::swiglu_bwd(exec, a);
  for_rows(exec, a.dy.dim[0], a.dy.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_bwd_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
