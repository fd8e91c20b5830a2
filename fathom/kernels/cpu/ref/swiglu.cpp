// Reference SwiGLU, its adjoint, and that of weighted experts.
#include <cmath>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

void swiglu(const Exec&, const Swiglu& a) {
  const int64_t T = a.y.dim[0], F = a.y.dim[1];
  with_real(a.y.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R *gate = row_of<R>(a.gate, t), *up = row_of<R>(a.up, t);
      R* y = row_of<R>(a.y, t);
      for (int64_t i = 0; i < F; ++i) {
        const double g = wide(gate[i]);
        y[i] = static_cast<R>(g * sigmoid(g) * wide(up[i]));
      }
    }
  });
}

void swiglu_bwd(const Exec&, const SwigluBwd& a) {
  const int64_t T = a.dy.dim[0], F = a.dy.dim[1];
  with_real(a.dy.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R *gate = row_of<R>(a.gate, t), *up = row_of<R>(a.up, t), *dy = row_of<R>(a.dy, t);
      R *dgate = optional_row<R>(a.dgate, t), *dup = optional_row<R>(a.dup, t);
      for (int64_t i = 0; i < F; ++i) {
        const double g = wide(gate[i]), s = sigmoid(g), d = wide(dy[i]), u = wide(up[i]);
        if (dgate) put(dgate + i, d * u * s * (1 + g * (1 - s)), a.add);
        if (dup) put(dup + i, d * g * s, a.add);
      }
    }
  });
}

void expert_bwd(const Exec&, const ExpertBwd& a) {
  const int64_t P = a.dy.dim[0], F = a.dy.dim[1], A = a.weights.dim[1];
  with_real(a.dy.dtype, [&]<class R>(R) {
    for (int64_t p = 0; p < P; ++p) {
      const R *gate = row_of<R>(a.gate, p), *up = row_of<R>(a.up, p), *dy = row_of<R>(a.dy, p);
      R *dgate = optional_row<R>(a.dgate, p), *dup = optional_row<R>(a.dup, p),
        *weighted_h = optional_row<R>(a.weighted_h, p);
      const int64_t t = a.pair[p] / A, k = a.pair[p] % A;
      const double weight = wide(row_of<R>(a.weights, t)[k]);
      double dot = 0;
      for (int64_t i = 0; i < F; ++i) {
        const double g = wide(gate[i]), s = sigmoid(g), h = g * s * wide(up[i]);
        const double d = weight * wide(dy[i]);
        dot += wide(dy[i]) * h;
        if (dgate) put(dgate + i, d * wide(up[i]) * s * (1 + g * (1 - s)), false);
        if (dup) put(dup + i, d * g * s, false);
        if (weighted_h) put(weighted_h + i, weight * h, false);
      }
      if (a.dweights) put(row_of<R>(a.dweights, t) + k, dot, a.add_dweights);
    }
  });
}

}  // namespace fathom::ref
