// Reference weighted sum of expert outputs, and the adjoint of the row gather that feeds the
// experts.
#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void combine(const Exec&, const Combine& a) {
  const int64_t T = a.y.dim[0], D = a.y.dim[1], A = a.weights.dim[1];
  with_real(a.y.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R* weight = row_of<R>(a.weights, t);
      R* y = row_of<R>(a.y, t);
      for (int64_t i = 0; i < D; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < A; ++k)
          sum += wide(weight[k]) * wide(row_of<R>(a.x, a.slot[t * A + k])[i]);
        put(y + i, wide(static_cast<R>(sum)), a.add);
      }
    }
  });
}

void gather_bwd(const Exec&, const GatherBwd& a) {
  const int64_t T = a.dx.dim[0], D = a.dx.dim[1], A = a.num_experts_per_tok;
  with_real(a.dx.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      R* dx = row_of<R>(a.dx, t);
      for (int64_t i = 0; i < D; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < A; ++k) sum += wide(row_of<R>(a.dxp, a.slot[t * A + k])[i]);
        put(dx + i, sum, a.add);
      }
    }
  });
}

}  // namespace fathom::ref
