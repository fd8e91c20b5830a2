// Reference cross entropy over logits, with its gradient.
#include <algorithm>
#include <cmath>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void cross_entropy(const Exec&, const CrossEntropy& a) {
  const int64_t T = a.logits.dim[0], W = a.logits.dim[1];
  with_real(a.logits.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      const R* logit = row_of<R>(a.logits, t);
      const int32_t target = a.target[t];
      double top = wide(logit[0]), sum = 0;
      for (int64_t i = 1; i < W; ++i) top = std::max(top, wide(logit[i]));
      for (int64_t i = 0; i < W; ++i) sum += std::exp(wide(logit[i]) - top);
      const double lse = top + std::log(sum);
      if (a.lse) a.lse.as<R>()[t] = static_cast<R>(lse);
      a.nll.as<R>()[t] = target < 0 ? R{0} : static_cast<R>(lse - wide(logit[target]));
      if (!a.dlogits) continue;
      R* d = row_of<R>(a.dlogits, t);
      for (int64_t i = 0; i < W; ++i) {
        const double p = std::exp(wide(logit[i]) - lse);
        d[i] = target < 0 ? R{0} : static_cast<R>(a.weight[t] * (i == target ? p - 1 : p));
      }
    }
  });
}

}  // namespace fathom::ref
