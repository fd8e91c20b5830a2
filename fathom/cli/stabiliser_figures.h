// What each stabiliser of reinforcement learning controls exactly, measured on a model: no
// training, no noise of outcomes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/ops/ctx.h"
#include "fathom/rl/rl_options.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

// Answers to be measured on; `options` are those of a stage (problems, prompts, group_size ...).
struct StabiliserProbe {
  const Ctx& ctx;  // without a tape
  const Tokenizer& tokenizer;
  const RlOptions& options;
};

// pi / mu at the weights that sampled: with the sampling mask 1, without it the kept mass.
struct MaskFigures {
  double top_p = 1;
  double kept_mass = 0, singleton_share = 0;
  double mean_ratio_with = 0, worst_ratio_with = 0;  // worst: largest |ratio - 1|
  double mean_ratio_without = 0;
};
MaskFigures measure_mask(const StabiliserProbe& probe, const Model& model, double top_p);

// Rollouts of weights rounded to `bits` (0: not rounded), replayed by the trainer's.
struct RoutingFigures {
  int64_t bits = 0;
  double differing = 0;                          // share of the routers' decisions, nothing forced
  double kl_without = 0, kl_with = 0;            // k3 of trainer and rollout
  double largest_without = 0, largest_with = 0;  // |difference of a log-prob|
  double agreement_with = 0;                     // of the experts that were used: 1
};
RoutingFigures measure_routing(const StabiliserProbe& probe, const Model& model, int64_t bits);

// Expected gradient of an estimator of the KL to the reference by the policy's logits, summed over
// the whole vocabulary at every position that `behaviour` visits, against that of KL(pi, ref).
struct KlGradient {
  std::string estimator, samples;
  double relative_error = 0, cosine = 0;
};
std::vector<KlGradient> measure_kl_gradients(const StabiliserProbe& probe, const Model& behaviour,
                                             const Model& policy, const Model& reference);

// D = mean log(mu / pi) of answers that `behaviour` sampled, under the policy.
struct SequenceDivergences {
  std::vector<double> negative, other;  // by the sign of the advantage; ascending
};
SequenceDivergences measure_divergences(const StabiliserProbe& probe, const Model& behaviour,
                                        const Model& policy);

}  // namespace fathom
