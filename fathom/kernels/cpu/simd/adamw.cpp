// Optimiser step and gradient norm.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/adamw.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void adamw_range(const AdamW& a, int64_t begin, int64_t end) {
  float *w = a.w.as<float>() + begin, *m = a.m.as<float>() + begin, *v = a.v.as<float>() + begin;
  const float* dw = a.dw.as<float>() + begin;
  const double step = static_cast<double>(a.step);
  const auto constant = [](double x) HWY_ATTR { return splat(static_cast<float>(x)); };
  const V16 rate = constant(-a.lr / (1 - std::pow(a.beta1, step)));
  const V16 correct = constant(1 / (1 - std::pow(a.beta2, step)));
  const V16 keep = constant(1 - a.lr * a.weight_decay), eps = constant(a.eps);
  const V16 beta1 = constant(a.beta1), new1 = constant((1 - a.beta1) * a.grad_scale);
  const V16 beta2 = constant(a.beta2), scale = constant(a.grad_scale), new2 = constant(1 - a.beta2);
  sweep(end - begin, [&](int64_t i, auto part) HWY_ATTR {
    const V16 g = load16(dw + i, part), clipped = g * scale;
    const V16 m1 = fused(beta1, load16(m + i, part), new1 * g);
    const V16 v1 = fused(beta2, load16(v + i, part), new2 * (clipped * clipped));
    store16(m1, m + i, part);
    store16(v1, v + i, part);
    const V16 change = m1 / (sqrt16(v1 * correct) + eps);
    store16(fused(rate, change, keep * load16(w + i, part)), w + i, part);
  });
}

// Of at most one chunk: sixteen f64 lanes, added by the tree of sum16.
double chunk_squares(const float* x, int64_t n) {
  const hn::CappedTag<double, 8> d64;
  const hn::Rebind<float, decltype(d64)> d32;
  constexpr int kLanes = HWY_LANES(double) < 8 ? HWY_LANES(double) : 8, kVecs = 16 / kLanes;
  hn::Vec<decltype(d64)> acc[kVecs];
#pragma GCC unroll 16
  for (int j = 0; j < kVecs; ++j) acc[j] = hn::Zero(d64);
  const auto add16 = [&](const float* p) HWY_ATTR {
#pragma GCC unroll 16
    for (int j = 0; j < kVecs; ++j) {
      const auto v = hn::PromoteTo(d64, hn::LoadU(d32, p + j * kLanes));
      acc[j] = hn::Add(acc[j], hn::Mul(v, v));
    }
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) add16(x + i);
  HWY_ALIGN float tail[16];
  store16(load16(x + i, Part{n - i}), tail);
  add16(tail);
  HWY_ALIGN double lane[16];
  for (int j = 0; j < kVecs; ++j) hn::Store(acc[j], d64, lane + j * kLanes);
  for (int half = 8; half >= 1; half /= 2)
    for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
  return lane[0];
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(adamw_range);
HWY_EXPORT(chunk_squares);

void adamw(const Exec& exec, const AdamW& a) {
  if (a.w.dtype != DType::kF32) return ref::adamw(exec, a);
  const int64_t n = a.w.numel(), chunk = 4 * kChunkElements;
  exec.pool->parallel_for(n, chunk, [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(a, begin, end);
  });
}

void sum_squares(const Exec& exec, const SumSquares& a) {
  if (a.x.dtype != DType::kF32) return ref::sum_squares(exec, a);
  constexpr int64_t kChunk = 4096;
  const int64_t n = a.x.numel(), chunks = (n + kChunk - 1) / kChunk;
  const std::shared_ptr<std::byte> block =
      exec.arena->allocate(chunks * static_cast<int64_t>(sizeof(double)));
  double* part = reinterpret_cast<double*>(block.get());
  for_rows(exec, chunks, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      part[c] = HWY_DYNAMIC_DISPATCH(chunk_squares)(a.x.as<float>() + c * kChunk,
                                                    std::min(kChunk, n - c * kChunk));
  });
  *a.sum = 0;
  for (int64_t c = 0; c < chunks; ++c) *a.sum += part[c];
}

}  // namespace fathom::simd
#endif
