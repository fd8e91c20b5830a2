// Reference optimiser step (decoupled decay before the update, bias-corrected moments) and gradient
// norm.
#include <algorithm>
#include <cmath>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void adamw(const Exec&, const AdamW& a) {
  const double step = static_cast<double>(a.step);
  const double correct1 = 1 / (1 - std::pow(a.beta1, step)),
               correct2 = 1 / (1 - std::pow(a.beta2, step));
  with_real(a.w.dtype, [&]<class R>(R) {
    R *w = a.w.as<R>(), *m = a.m.as<R>(), *v = a.v.as<R>();
    const R* dw = a.dw.as<R>();
    for (int64_t i = 0; i < a.w.numel(); ++i) {
      const double g = wide(dw[i]) * a.grad_scale;
      const double m1 = a.beta1 * wide(m[i]) + (1 - a.beta1) * g,
                   v1 = a.beta2 * wide(v[i]) + (1 - a.beta2) * g * g;
      const double decayed = wide(w[i]) * (1 - a.lr * a.weight_decay);
      m[i] = static_cast<R>(m1);
      v[i] = static_cast<R>(v1);
      w[i] = static_cast<R>(decayed - a.lr * (m1 * correct1) / (std::sqrt(v1 * correct2) + a.eps));
    }
  });
}

void sum_squares(const Exec&, const SumSquares& a) {
  constexpr int64_t kChunk = 4096;
  *a.sum = 0;
  with_real(a.x.dtype, [&]<class R>(R) {
    const R* x = a.x.as<R>();
    const int64_t n = a.x.numel();
    for (int64_t begin = 0; begin < n; begin += kChunk) {
      double sum = 0;
      for (int64_t i = begin; i < std::min(begin + kChunk, n); ++i) sum += wide(x[i]) * wide(x[i]);
      *a.sum += sum;
    }
  });
}

}  // namespace fathom::ref
