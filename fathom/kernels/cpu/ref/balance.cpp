// Reference sequence-wise balance loss (DeepSeek-V3 report, eq. 17-20) and its gradient to the
// scores.
#include <vector>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

// f[e] += 1 for each of the A largest scores; ties to the lowest index
template <class R>
void count_top(const R* score, int64_t E, int64_t A, std::vector<double>& f) {
  std::vector<bool> taken(static_cast<size_t>(E));
  for (int64_t k = 0; k < A; ++k) {
    int64_t best = -1;
    for (int64_t e = 0; e < E; ++e)
      if (!taken[static_cast<size_t>(e)] && (best < 0 || score[e] > score[best])) best = e;
    taken[static_cast<size_t>(best)] = true;
    f[static_cast<size_t>(best)] += 1;
  }
}

// The loss of one sequence; adds `scale` times its gradient to dscores.
template <class R>
double sequence(const Balance& a, int64_t begin, int64_t end, double scale) {
  const int64_t E = a.scores.dim[1], A = a.num_experts_per_tok;
  const double rows = static_cast<double>(end - begin);
  std::vector<double> f(static_cast<size_t>(E));
  for (int64_t t = begin; t < end; ++t) count_top(row_of<R>(a.scores, t), E, A, f);
  for (double& x : f) x *= static_cast<double>(E) / (static_cast<double>(A) * rows);
  double loss = 0;
  for (int64_t t = begin; t < end; ++t) {
    const R* score = row_of<R>(a.scores, t);
    double sum = 0, dot = 0;
    for (int64_t e = 0; e < E; ++e) {
      sum += wide(score[e]);
      dot += f[static_cast<size_t>(e)] * wide(score[e]);
    }
    loss += dot / sum / rows;
    for (int64_t e = 0; a.dscores && e < E; ++e)
      put(row_of<R>(a.dscores, t) + e, scale / rows * (f[static_cast<size_t>(e)] - dot / sum) / sum,
          a.add);
  }
  return loss;
}

}  // namespace

void balance(const Exec&, const Balance& a) {
  const double inv_num = 1 / static_cast<double>(a.num_seq);
  *a.loss = 0;
  with_real(a.scores.dtype, [&]<class R>(R) {
    for (int64_t b = 0; b < a.num_seq; ++b)
      if (a.first_row[b + 1] > a.first_row[b])
        *a.loss += inv_num * sequence<R>(a, a.first_row[b], a.first_row[b + 1], a.weight * inv_num);
  });
}

}  // namespace fathom::ref
