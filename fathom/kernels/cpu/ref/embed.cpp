// Reference row gather from a table and its adjoint.
#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

template <class F>
void with_table(DType t, F f) {
  switch (t) {
    case DType::kF32:
      return f(float{});
    case DType::kF64:
      return f(double{});
    case DType::kBF16:
      return f(bf16{});
    case DType::kF16:
      return f(f16{});
    default:
      FM_CHECK(false, "an embedding table of type {}", dtype_name(t));
  }
}

}  // namespace

void embed(const Exec&, const Embed& a) {
  const int64_t T = a.y.dim[0], D = a.y.dim[1];
  with_real(a.y.dtype, [&]<class R>(R) {
    with_table(a.table.dtype, [&]<class W>(W) {
      for (int64_t t = 0; t < T; ++t) {
        const W* row = row_of<W>(a.table, a.ids[t]);
        R* y = row_of<R>(a.y, t);
        for (int64_t i = 0; i < D; ++i) {
          if constexpr (std::is_arithmetic_v<W>)
            y[i] = static_cast<R>(row[i]);
          else
            y[i] = static_cast<R>(to_float(row[i]));
        }
      }
    });
  });
}

void embed_bwd(const Exec&, const EmbedBwd& a) {
  const int64_t T = a.dy.dim[0], D = a.dy.dim[1];
  with_real(a.dy.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R* dy = row_of<R>(a.dy, t);
      R* row = row_of<R>(a.dtable, a.ids[t]);
      for (int64_t i = 0; i < D; ++i) row[i] += dy[i];
    }
  });
}

}  // namespace fathom::ref
