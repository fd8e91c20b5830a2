// SwiGLU, its adjoint, and that of weighted experts.
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
      ask_ahead(gate + i), ask_ahead(up + i), ask_ahead(y + i);
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

void expert_bwd_rows(const ExpertBwd& a, int64_t begin, int64_t end) {
  const int64_t A = a.weights.dim[1];
  for (int64_t p = begin; p < end; ++p) {
    const float *gate = row(a.gate, p), *up = row(a.up, p), *dy = row(a.dy, p);
    float* dgate = a.dgate ? row(a.dgate, p) : nullptr;
    float* dup = a.dup ? row(a.dup, p) : nullptr;
    float* weighted_h = a.weighted_h ? row(a.weighted_h, p) : nullptr;
    const int64_t t = a.pair[p] / A, k = a.pair[p] % A;
    const V16 weight = splat(row(a.weights, t)[k]);
    V16 dot = zero16();
    sweep(a.dy.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      const V16 g = load16(gate + i, part), u = load16(up + i, part), d = load16(dy + i, part);
      const V16 s = sigmoid16(g), silu = g * s, h = silu * u, dh = weight * d;
      dot = fused(d, h, dot);
      if (dgate) store16(dh * u * (s * fused(g, splat(1) - s, splat(1))), dgate + i, part);
      if (dup) store16(dh * silu, dup + i, part);
      if (weighted_h) store16(weight * h, weighted_h + i, part);
    });
    if (!a.dweights) continue;
    float* out = row(a.dweights, t) + k;
    *out = a.add_dweights ? *out + sum16(dot) : sum16(dot);
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
HWY_EXPORT(expert_bwd_rows);

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

void expert_bwd(const Exec& exec, const ExpertBwd& a) {
  if (a.dy.dtype != DType::kF32) return ref::expert_bwd(exec, a);
  for_rows(exec, a.dy.dim[0], a.dy.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(expert_bwd_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
