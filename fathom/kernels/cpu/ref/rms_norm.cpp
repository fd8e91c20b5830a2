// Reference RMS norm, alone and of a sum, and its adjoint.
#include <cmath>
#include <vector>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void rms_norm(const Exec&, const RmsNorm& a) {
  const int64_t T = a.x.dim[0], D = a.x.dim[1];
  with_real(a.x.dtype, [&]<class R>(R) {
    const R* g = a.g.as<R>();
    for (int64_t t = 0; t < T; ++t) {
      const R* x = row_of<R>(a.x, t);
      R* y = row_of<R>(a.y, t);
      double sum = 0;
      for (int64_t i = 0; i < D; ++i) sum += wide(x[i]) * wide(x[i]);
      const double r = 1 / std::sqrt(sum / static_cast<double>(D) + a.eps);
      for (int64_t i = 0; i < D; ++i) y[i] = static_cast<R>(wide(g[i]) * wide(x[i]) * r);
      if (a.inv_rms) a.inv_rms.as<R>()[t] = static_cast<R>(r);
    }
  });
}

void add_norm(const Exec& exec, const AddNorm& a) {
  add(exec, {.a = a.a, .b = a.b, .y = a.sum});
  rms_norm(exec, {.x = a.sum, .g = a.g, .y = a.y, .inv_rms = {}, .eps = a.eps});
}

void rms_norm_bwd(const Exec&, const RmsNormBwd& a) {
  const int64_t T = a.x.dim[0], D = a.x.dim[1];
  with_real(a.x.dtype, [&]<class R>(R) {
    const R* g = a.g.as<R>();
    std::vector<double> dg(static_cast<size_t>(D));
    for (int64_t t = 0; t < T; ++t) {
      const R *x = row_of<R>(a.x, t), *dy = row_of<R>(a.dy, t);
      const double r = wide(a.inv_rms.as<R>()[t]);
      double mean = 0;
      for (int64_t i = 0; i < D; ++i) mean += wide(g[i]) * wide(dy[i]) * wide(x[i]);
      mean /= static_cast<double>(D);
      for (int64_t i = 0; i < D; ++i) {
        dg[static_cast<size_t>(i)] += wide(dy[i]) * wide(x[i]) * r;
        if (a.dx)
          put(row_of<R>(a.dx, t) + i, r * wide(g[i]) * wide(dy[i]) - wide(x[i]) * r * r * r * mean,
              a.add_dx);
      }
    }
    for (int64_t i = 0; a.dg && i < D; ++i)
      put(a.dg.as<R>() + i, dg[static_cast<size_t>(i)], a.add_dg);
  });
}

}  // namespace fathom::ref
