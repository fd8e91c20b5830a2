// The arithmetic of all policy objectives, without a model: log-probs in, the objective and its
// derivative with respect to each log-prob out. (Training spec 1.2, 1.3.)
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "fathom/rl/policy_options.h"

namespace fathom {

// One answer; only tokens that the policy sampled, all lists of their number or empty.
struct SequenceInput {
  std::span<const double> logp;       // pi
  std::span<const double> behaviour;  // mu
  std::span<const double> prox;       // empty: none
  std::span<const double> ref;        // empty: none; needed for a KL with beta > 0
  std::span<const double> advantage;  // of each token
  double beta = 0;                    // of the KL
  bool left_out = false;              // counts nowhere
};

// Denominators of a whole mini-batch and the resolved delta: what parts of it must share.
struct PolicyCounts {
  int64_t num_seq = 0;
  int64_t num_tok = 0;   // sampled ones
  int64_t num_rows = 0;  // of the model
  int64_t longest = 0;
  double opsm_delta = std::numeric_limits<double>::infinity();  // infinite: no mask
};

struct SequenceTerms {
  std::vector<double> ratio, kl, objective;  // per token, before aggregation
  std::vector<double> coefficient;           // d(objective of the mini-batch) / d logp
  double total = 0;                          // what this answer adds to the objective
  double divergence = 0;  // D = mean log(mu / pi): mismatch + staleness where prox is known
  double mismatch = 0, staleness = 0;  // mean log(mu / prox), mean log(prox / pi)
  bool masked = false;                 // out of the surrogate as a whole
  int64_t num_clipped = 0;             // tokens whose surrogate has no gradient by clipping
  template <class F>
  void each(F&& f) {
    f(ratio), f(kl), f(objective), f(coefficient), f(total), f(divergence), f(mismatch);
    f(staleness), f(masked), f(num_clipped);
  }
};

SequenceTerms sequence_terms(const SequenceInput& in, const PolicyCounts& counts,
                             const PolicyOptions& options);

// The smallest of `values` that at least the share q of them does not exceed; 0 without any.
double quantile(std::vector<double> values, double q);

// The delta of the sequence mask: infinite for off, the number, or max(floor, quantile q of
// `divergences`). Throws Error for auto without any.
double resolve_opsm_delta(const PolicyOptions& options, std::span<const double> divergences);

}  // namespace fathom
