// Reference rotary embedding, forward and inverse.
#include <cmath>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void rope(const Exec&, const Rope& a) {
  const int64_t T = a.x.dim[0], H = a.x.dim[1], half = a.x.dim[2] / 2;
  const bool halves = a.pairs == RopePairs::kHalves;
  with_real(a.x.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(a.pos[t]) * a.inv_freq[i];
        const double c = wide(static_cast<R>(a.amplitude * std::cos(angle)));
        const double s = wide(static_cast<R>(a.amplitude * std::sin(angle))) * (a.inverse ? -1 : 1);
        const int64_t first = halves ? i : 2 * i, second = halves ? i + half : 2 * i + 1;
        for (int64_t h = 0; h < H; ++h) {
          const R* x = row_of<R>(a.x, t) + h * a.x.stride[1];
          R* y = row_of<R>(a.y, t) + h * a.y.stride[1];
          const double x0 = wide(x[first]), x1 = wide(x[second]);
          put(y + first, x0 * c - x1 * s, a.add);
          put(y + second, x0 * s + x1 * c, a.add);
        }
      }
    }
  });
}

}  // namespace fathom::ref
