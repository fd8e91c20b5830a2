// Reference layer norm and its adjoint.
#include <cmath>
#include <vector>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void layer_norm(const Exec&, const LayerNorm& a) {
  const int64_t T = a.x.dim[0], D = a.x.dim[1];
  const double inv_d = 1 / static_cast<double>(D);
  with_real(a.x.dtype, [&]<class R>(R) {
    const R *g = a.g.as<R>(), *b = a.b.as<R>();
    for (int64_t t = 0; t < T; ++t) {
      const R* x = row_of<R>(a.x, t);
      R* y = row_of<R>(a.y, t);
      double mean = 0, var = 0;
      for (int64_t i = 0; i < D; ++i) mean += wide(x[i]) * inv_d;
      for (int64_t i = 0; i < D; ++i) var += (wide(x[i]) - mean) * (wide(x[i]) - mean) * inv_d;
      const double inv_std = 1 / std::sqrt(var + a.eps);
      for (int64_t i = 0; i < D; ++i)
        y[i] = static_cast<R>(wide(g[i]) * (wide(x[i]) - mean) * inv_std + wide(b[i]));
      if (a.mean) a.mean.as<R>()[t] = static_cast<R>(mean);
      if (a.inv_std) a.inv_std.as<R>()[t] = static_cast<R>(inv_std);
    }
  });
}

void layer_norm_bwd(const Exec&, const LayerNormBwd& a) {
  const int64_t T = a.x.dim[0], D = a.x.dim[1];
  const double inv_d = 1 / static_cast<double>(D);
  with_real(a.x.dtype, [&]<class R>(R) {
    const R* g = a.g.as<R>();
    std::vector<double> dg(static_cast<size_t>(D)), db(static_cast<size_t>(D));
    for (int64_t t = 0; t < T; ++t) {
      const R *x = row_of<R>(a.x, t), *dy = row_of<R>(a.dy, t);
      const double mean = wide(a.mean.as<R>()[t]), inv_std = wide(a.inv_std.as<R>()[t]);
      double mean_gdy = 0, mean_gdyx = 0;  // of g dy and of g dy times the normalised x
      for (int64_t i = 0; i < D; ++i) {
        const double n = (wide(x[i]) - mean) * inv_std, gdy = wide(g[i]) * wide(dy[i]);
        mean_gdy += gdy * inv_d;
        mean_gdyx += gdy * n * inv_d;
        dg[static_cast<size_t>(i)] += wide(dy[i]) * n;
        db[static_cast<size_t>(i)] += wide(dy[i]);
      }
      for (int64_t i = 0; a.dx && i < D; ++i) {
        const double n = (wide(x[i]) - mean) * inv_std, gdy = wide(g[i]) * wide(dy[i]);
        put(row_of<R>(a.dx, t) + i, inv_std * (gdy - mean_gdy - n * mean_gdyx), a.add_dx);
      }
    }
    for (int64_t i = 0; a.dg && i < D; ++i)
      put(a.dg.as<R>() + i, dg[static_cast<size_t>(i)], a.add_dg);
    for (int64_t i = 0; a.db && i < D; ++i)
      put(a.db.as<R>() + i, db[static_cast<size_t>(i)], a.add_db);
  });
}

}  // namespace fathom::ref
