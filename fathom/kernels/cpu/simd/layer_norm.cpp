// Layer norm and its adjoint.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/layer_norm.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

void layer_norm_rows(const LayerNorm& a, int64_t begin, int64_t end) {
  const int64_t D = a.x.dim[1];
  const float *g = a.g.as<float>(), *b = a.b.as<float>();
  for (int64_t t = begin; t < end; ++t) {
    const float* x = row(a.x, t);
    float* y = row(a.y, t);
    V16 sum = zero16(), squares = zero16();
    sweep(D, [&](int64_t i, auto part) HWY_ATTR { sum = sum + load16(x + i, part); });
    const float mean = sum16(sum) / static_cast<float>(D);
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      const V16 c = pad(load16(x + i, part) - splat(mean), part, 0);
      squares = fused(c, c, squares);
    });
    const double var = static_cast<double>(sum16(squares)) / static_cast<double>(D);
    const float inv_std = static_cast<float>(1 / std::sqrt(var + a.eps));
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      const V16 n = (load16(x + i, part) - splat(mean)) * splat(inv_std);
      store16(fused(load16(g + i, part), n, load16(b + i, part)), y + i, part);
    });
    if (a.mean) a.mean.as<float>()[t] = mean;
    if (a.inv_std) a.inv_std.as<float>()[t] = inv_std;
  }
}

// Rows of one chunk; dg and db get the chunk's sums.
void layer_norm_bwd_rows(const LayerNormBwd& a, int64_t begin, int64_t end, float* dg, float* db) {
  const int64_t D = a.x.dim[1];
  const float* g = a.g.as<float>();
  for (int64_t t = begin; t < end; ++t) {
    const float *x = row(a.x, t), *dy = row(a.dy, t);
    float* dx = a.dx ? row(a.dx, t) : nullptr;
    const V16 mean = splat(a.mean.as<float>()[t]), inv_std = splat(a.inv_std.as<float>()[t]);
    V16 sum = zero16(), dot = zero16();  // of g dy, and of g dy times the normalised x
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      const V16 d = load16(dy + i, part), n = (load16(x + i, part) - mean) * inv_std;
      const V16 gdy = load16(g + i, part) * d;
      sum = sum + gdy;
      dot = fused(gdy, n, dot);
      if (dg) store16(fused(d, n, load16(dg + i, part)), dg + i, part);
      if (db) store16(load16(db + i, part) + d, db + i, part);
    });
    if (!dx) continue;
    const V16 mean_gdy = splat(sum16(sum) / static_cast<float>(D));
    const V16 mean_dot = splat(sum16(dot) / static_cast<float>(D));
    sweep(D, [&](int64_t i, auto part) HWY_ATTR {
      const V16 n = (load16(x + i, part) - mean) * inv_std;
      const V16 gdy = load16(g + i, part) * load16(dy + i, part);
      const V16 inner = gdy - fused(n, mean_dot, mean_gdy);
      const V16 rest = a.add_dx ? load16(dx + i, part) : zero16();
      store16(fused(inner, inv_std, rest), dx + i, part);
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

HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(layer_norm_bwd_rows);

void layer_norm(const Exec& exec, const LayerNorm& a) {
  if (a.x.dtype != DType::kF32) return ref::layer_norm(exec, a);
  for_rows(exec, a.x.dim[0], a.x.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(layer_norm_rows)(a, begin, end);
  });
}

void layer_norm_bwd(const Exec& exec, const LayerNormBwd& a) {
  if (a.x.dtype != DType::kF32) return ref::layer_norm_bwd(exec, a);
  const int64_t D = a.x.dim[1];
  sum_over_chunks(
      exec, a.x.dim[0], D, 2,
      [&](int64_t begin, int64_t end, float* sums) {
        HWY_DYNAMIC_DISPATCH(layer_norm_bwd_rows)
        (a, begin, end, a.dg ? sums : nullptr, a.db ? sums + D : nullptr);
      },
      [&](const float* sums) {
        put_sums(sums, a.dg, a.add_dg);
        put_sums(sums + D, a.db, a.add_db);
      });
}

}  // namespace fathom::simd
#endif
