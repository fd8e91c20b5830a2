// Sums of tensors.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/add.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void add_rows(const Add& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float *p = row(a.a, t), *q = row(a.b, t);
    float* y = row(a.y, t);
    sweep(a.y.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      ask_ahead(p + i), ask_ahead(q + i), ask_ahead(y + i);
      store16(load16(p + i, part) + load16(q + i, part), y + i, part);
    });
  }
}

void accumulate_rows(const Accumulate& a, int64_t begin, int64_t end) {
  const V16 scale = splat(static_cast<float>(a.scale));
  for (int64_t t = begin; t < end; ++t) {
    const float* x = row(a.x, t);
    float* y = row(a.y, t);
    if (a.add)
      sweep(a.y.dim[1], [&](int64_t i, auto part) HWY_ATTR {
        store16(fused(load16(x + i, part), scale, load16(y + i, part)), y + i, part);
      });
    else
      sweep(a.y.dim[1], [&](int64_t i, auto part)
                            HWY_ATTR { store16(load16(x + i, part) * scale, y + i, part); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(add_rows);
HWY_EXPORT(accumulate_rows);

void add(const Exec& exec, const Add& a) {
  if (a.y.dtype != DType::kF32) return ref::add(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_rows)(a, begin, end);
  });
}

void accumulate(const Exec& exec, const Accumulate& a) {
  if (a.y.dtype != DType::kF32) return ref::accumulate(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(accumulate_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
