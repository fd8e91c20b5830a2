// Reference sums of tensors.
#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void add(const Exec&, const Add& a) {
  const int64_t T = a.y.dim[0], D = a.y.dim[1];
  with_real(a.y.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R *p = row_of<R>(a.a, t), *q = row_of<R>(a.b, t);
      R* y = row_of<R>(a.y, t);
      for (int64_t i = 0; i < D; ++i) y[i] = p[i] + q[i];
    }
  });
}

void accumulate(const Exec&, const Accumulate& a) {
  const int64_t T = a.y.dim[0], D = a.y.dim[1];
  with_real(a.y.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R* x = row_of<R>(a.x, t);
      R* y = row_of<R>(a.y, t);
      for (int64_t i = 0; i < D; ++i) put(y + i, a.scale * wide(x[i]), a.add);
    }
  });
}

}  // namespace fathom::ref
