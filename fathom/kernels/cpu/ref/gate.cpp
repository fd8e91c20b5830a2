// Reference router: scores, group-limited selection, gate weights, and the adjoint through the
// scores.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

constexpr double kTiny =
    1e-20;  // keeps the normalisation finite when all selected scores underflow
constexpr double kExcluded = -std::numeric_limits<double>::infinity();

double bias_of(const View& bias, int64_t e) {
  if (!bias) return 0;
  return bias.dtype == DType::kF64 ? bias.as<double>()[e] : wide(bias.as<float>()[e]);
}

template <class R>
void score_row(ScoringFunc scoring, const R* logit, int64_t E, R* score) {
  if (scoring == ScoringFunc::kSigmoid) {
    for (int64_t e = 0; e < E; ++e) score[e] = static_cast<R>(1 / (1 + std::exp(-wide(logit[e]))));
    return;
  }
  double top = kExcluded, sum = 0;
  for (int64_t e = 0; e < E; ++e) top = std::max(top, wide(logit[e]));
  for (int64_t e = 0; e < E; ++e) sum += std::exp(wide(logit[e]) - top);
  for (int64_t e = 0; e < E; ++e) score[e] = static_cast<R>(std::exp(wide(logit[e]) - top) / sum);
}

// Index of the largest value that is not taken; ties to the lowest index. At least one must be
// free.
int64_t best_free(const std::vector<double>& value, const std::vector<bool>& taken) {
  int64_t best = -1;
  for (size_t i = 0; i < value.size(); ++i)
    if (!taken[i] && (best < 0 || value[i] > value[static_cast<size_t>(best)]))
      best = static_cast<int64_t>(i);
  return best;
}

// Sets z to -inf in every group that is not among the best `topk_group`.
void limit_groups(const Gate& a, std::vector<double>& z) {
  const size_t num = static_cast<size_t>(a.n_group), size = z.size() / num;
  std::vector<double> group(num);
  for (size_t i = 0; i < num; ++i) {
    double first = kExcluded, second = kExcluded;
    for (size_t j = i * size; j < (i + 1) * size; ++j) {
      if (z[j] > first)
        second = std::exchange(first, z[j]);
      else
        second = std::max(second, z[j]);
    }
    group[i] = a.method == TopkMethod::kNoauxTc && size > 1 ? first + second : first;
  }
  std::vector<bool> kept(num);
  for (int64_t k = 0; k < a.topk_group; ++k)
    kept[static_cast<size_t>(best_free(group, kept))] = true;
  for (size_t j = 0; j < z.size(); ++j)
    if (!kept[j / size]) z[j] = kExcluded;
}

template <class R>
void select_row(const Gate& a, const R* score, int32_t* expert) {
  const int64_t E = a.logits.dim[1];
  std::vector<double> z(static_cast<size_t>(E));
  for (int64_t e = 0; e < E; ++e) {
    // Selection scores have the tensors' precision, so that ties are the same for every backend.
    const R sum = score[e] + static_cast<R>(bias_of(a.bias, e));
    z[static_cast<size_t>(e)] = sum == sum ? wide(sum) : kExcluded;
  }
  if (a.method != TopkMethod::kGreedy && a.n_group > 1) limit_groups(a, z);
  std::vector<bool> taken(z.size());
  for (int64_t k = 0; k < a.experts.dim[1]; ++k) {
    const int64_t e = best_free(z, taken);
    taken[static_cast<size_t>(e)] = true;
    expert[k] = static_cast<int32_t>(e);
  }
}

template <class R>
double selected_sum(const R* score, const int32_t* expert, int64_t A) {
  double sum = kTiny;
  for (int64_t k = 0; k < A; ++k) sum += wide(score[expert[k]]);
  return sum;
}

// dscore (all experts) from the gradient of the weights
template <class R>
void weights_bwd(const GateBwd& a, int64_t t, std::vector<double>& dscore) {
  const int64_t A = a.weights.dim[1];
  const R *score = row_of<R>(a.scores, t), *weight = row_of<R>(a.weights, t),
          *dweight = row_of<R>(a.dweights, t);
  const int32_t* expert = row_of<int32_t>(a.experts, t);
  double sum = 1, dot = 0;
  if (a.norm_topk_prob) {
    sum = selected_sum(score, expert, A);
    for (int64_t k = 0; k < A; ++k) dot += wide(dweight[k]) * wide(weight[k]);
  }
  for (int64_t k = 0; k < A; ++k)
    dscore[static_cast<size_t>(expert[k])] +=
        (wide(dweight[k]) * a.routed_scaling_factor - dot) / sum;
}

}  // namespace

void gate(const Exec&, const Gate& a) {
  const int64_t T = a.logits.dim[0], E = a.logits.dim[1], A = a.experts.dim[1];
  FM_CHECK(A <= E && a.n_group >= 1 && E % a.n_group == 0 && a.topk_group <= a.n_group,
           "{} of {} experts in {} of {} groups", A, E, a.topk_group, a.n_group);
  with_real(a.logits.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < T; ++t) {
      R *score = row_of<R>(a.scores, t), *weight = row_of<R>(a.weights, t);
      int32_t* expert = row_of<int32_t>(a.experts, t);
      score_row(a.scoring, row_of<R>(a.logits, t), E, score);
      if (!a.forced) select_row(a, score, expert);
      const double sum = a.norm_topk_prob ? selected_sum(score, expert, A) : 1;
      for (int64_t k = 0; k < A; ++k)
        weight[k] = static_cast<R>(wide(score[expert[k]]) / sum * a.routed_scaling_factor);
    }
  });
}

void gate_bwd(const Exec&, const GateBwd& a) {
  const int64_t T = a.scores.dim[0], E = a.scores.dim[1];
  with_real(a.scores.dtype, [&]<class R>(R) {
    std::vector<double> dscore(static_cast<size_t>(E));
    for (int64_t t = 0; t < T; ++t) {
      const R* score = row_of<R>(a.scores, t);
      const R* elsewhere = optional_row<R>(a.dscores, t);
      for (int64_t e = 0; e < E; ++e)
        dscore[static_cast<size_t>(e)] = elsewhere ? wide(elsewhere[e]) : 0;
      if (a.dweights) weights_bwd<R>(a, t, dscore);
      double dot = 0;
      if (a.scoring == ScoringFunc::kSoftmax)
        for (int64_t e = 0; e < E; ++e) dot += dscore[static_cast<size_t>(e)] * wide(score[e]);
      for (int64_t e = 0; e < E; ++e) {
        const double s = wide(score[e]), ds = dscore[static_cast<size_t>(e)];
        put(row_of<R>(a.dlogits, t) + e,
            a.scoring == ScoringFunc::kSigmoid ? ds * s * (1 - s) : s * (ds - dot), a.add);
      }
    }
  });
}

}  // namespace fathom::ref
