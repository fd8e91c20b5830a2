// RMS norm, alone and of a sum, and its adjoint.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/rms_norm.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

// y = g x r with r = 1 / rms(x), from the lanes' sums of x^2; returns r.
HWY_INLINE float scale_row(const float* x, const float* g, V16 squares, int64_t D, double eps,
                           float* y) {
  const double mean = static_cast<double>(sum16(squares)) / static_cast<double>(D);
  const float r = static_cast<float>(1 / std::sqrt(mean + eps));
  sweep(D, [&](int64_t i, auto part) HWY_ATTR {
    ask_ahead(y + i);
    store16(load16(g + i, part) * (load16(x + i, part) * splat(r)), y + i, part);
  });
  return r;
}

void rms_norm_rows(const RmsNorm& a, int64_t begin, int64_t end) {
  const int64_t D = a.x.dim[1];
  const float* g = a.g.as<float>();
  for (int64_t t = begin; t < end; ++t) {
    const float* x = row(a.x, t);
    V16 squares = zero16();
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      ask_ahead(x + i);
      const V16 v = load16(x + i, part);
      squares = fused(v, v, squares);
    });
    const float r = scale_row(x, g, squares, D, a.eps, row(a.y, t));
    if (a.inv_rms) a.inv_rms.as<float>()[t] = r;
  }
}

void add_norm_rows(const AddNorm& a, int64_t begin, int64_t end) {
  const int64_t D = a.sum.dim[1];
  const float* g = a.g.as<float>();
  for (int64_t t = begin; t < end; ++t) {
    const float *p = row(a.a, t), *q = row(a.b, t);
    float* sum = row(a.sum, t);
    V16 squares = zero16();
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      ask_ahead(p + i), ask_ahead(q + i);
      const V16 v = load16(p + i, part) + load16(q + i, part);
      store16(v, sum + i, part);
      squares = fused(v, v, squares);
    });
    scale_row(sum, g, squares, D, a.eps, row(a.y, t));
  }
}

// Rows of one chunk; dg gets the chunk's sum.
void rms_norm_bwd_rows(const RmsNormBwd& a, int64_t begin, int64_t end, float* dg) {
  const int64_t D = a.x.dim[1];
  const float* g = a.g.as<float>();
  for (int64_t t = begin; t < end; ++t) {
    const float *x = row(a.x, t), *dy = row(a.dy, t);
    float* dx = a.dx ? row(a.dx, t) : nullptr;
    const float r = a.inv_rms.as<float>()[t];
    V16 dot = zero16();
    if (dx)
      sweep(D, [&](int64_t i, auto part) HWY_ATTR {
        dot = fused(load16(g + i, part) * load16(dy + i, part), load16(x + i, part), dot);
      });
    const float mean = sum16(dot) / static_cast<float>(D);
    const V16 along = splat(-r * r * r * mean), scale = splat(r);
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      const V16 v = load16(x + i, part), d = load16(dy + i, part) * scale;
      if (dg) store16(fused(d, v, load16(dg + i, part)), dg + i, part);
      if (!dx) return;
      const V16 rest = a.add_dx ? load16(dx + i, part) : zero16();
      store16(fused(load16(g + i, part), d, fused(v, along, rest)), dx + i, part);
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

HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(add_norm_rows);
HWY_EXPORT(rms_norm_bwd_rows);

void rms_norm(const Exec& exec, const RmsNorm& a) {
  if (a.x.dtype != DType::kF32) return ref::rms_norm(exec, a);
  for_rows(exec, a.x.dim[0], a.x.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(a, begin, end);
  });
}

void add_norm(const Exec& exec, const AddNorm& a) {
  if (a.sum.dtype != DType::kF32) return ref::add_norm(exec, a);
  for_rows(exec, a.sum.dim[0], a.sum.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_norm_rows)(a, begin, end);
  });
}

void rms_norm_bwd(const Exec& exec, const RmsNormBwd& a) {
  if (a.x.dtype != DType::kF32) return ref::rms_norm_bwd(exec, a);
  sum_over_chunks(
      exec, a.x.dim[0], a.x.dim[1], 1,
      [&](int64_t begin, int64_t end, float* sums) {
        HWY_DYNAMIC_DISPATCH(rms_norm_bwd_rows)(a, begin, end, a.dg ? sums : nullptr);
      },
      [&](const float* sums) { put_sums(sums, a.dg, a.add_dg); });
}

}  // namespace fathom::simd
#endif
