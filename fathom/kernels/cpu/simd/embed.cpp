// Row gather from a table and its adjoint.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/embed.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

// Columns begin .. end-1 of all rows, t ascending.
void embed_bwd_columns(const EmbedBwd& a, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < a.dy.dim[0]; ++t) {
    const float* dy = row(a.dy, t) + begin;
    float* sum = row(a.dtable, a.ids[t]) + begin;
    sweep(end - begin, [&](int64_t i, auto part) HWY_ATTR {
      store16(load16(sum + i, part) + load16(dy + i, part), sum + i, part);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cstring>
#include <type_traits>
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(embed_bwd_columns);

namespace {

template <class W>
void embed_rows(const Embed& a, int64_t begin, int64_t end) {
  const int64_t D = a.y.dim[1];
  for (int64_t t = begin; t < end; ++t) {
    const W* from = a.table.as<W>() + a.ids[t] * a.table.stride[0];
    float* to = row(a.y, t);
    if constexpr (std::is_same_v<W, float>)
      std::memcpy(to, from, static_cast<size_t>(D) * sizeof(float));
    else
      for (int64_t i = 0; i < D; ++i) to[i] = to_float(from[i]);
  }
}

}  // namespace

void embed(const Exec& exec, const Embed& a) {
  const DType table = a.table.dtype;
  if (a.y.dtype != DType::kF32 || table == DType::kF64) return ref::embed(exec, a);
  for_rows(exec, a.y.dim[0], a.y.dim[1], [&](int64_t begin, int64_t end) {
    if (table == DType::kBF16)
      embed_rows<bf16>(a, begin, end);
    else if (table == DType::kF16)
      embed_rows<f16>(a, begin, end);
    else
      embed_rows<float>(a, begin, end);
  });
}

void embed_bwd(const Exec& exec, const EmbedBwd& a) {
  if (a.dy.dtype != DType::kF32) return ref::embed_bwd(exec, a);
  // Rows may meet in the table, columns never do: threads share the columns.
  const int64_t T = a.dy.dim[0], D = a.dy.dim[1], threads = exec.pool->size();
  const int64_t lanes = 16, blocks = (D + lanes - 1) / lanes;
  const int64_t grain = T * D <= kChunkElements ? blocks : (blocks + threads - 1) / threads;
  exec.pool->parallel_for(blocks, grain, [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(embed_bwd_columns)(a, begin * lanes, std::min(end * lanes, D));
  });
}

}  // namespace fathom::simd
#endif
