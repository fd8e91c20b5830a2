// From the rollouts of a step to what its mini-batches learn from: which answers count, whether the
// trainer agrees with them, their advantages, and the log-probs of other policies.
#pragma once

#include <span>
#include <vector>

#include "fathom/rl/agreement.h"
#include "fathom/rl/rl_objective.h"
#include "fathom/rl/rl_options.h"
#include "fathom/train/shared_gradient.h"

namespace fathom {

struct PreparedStep {
  std::vector<const Rollout*> rollouts;  // that are learned from
  bool fresh = false;   // the weights at hand sampled all of them: agreement must be exact
  size_t compared = 0;  // rollouts in `agreement`, the first ones
  Agreement agreement;
  std::vector<PolicySample> samples;  // one for each rollout
  double opsm_delta = 0;
  double agreement_s = 0, replay_s = 0;  // seconds
};

// Before the first update of a step: `model` has the weights `version`, `reference` may be null if
// the objective needs none. `rollouts` (whole groups, one after the other) must outlive the result.
PreparedStep prepare_step(const Ctx& ctx, const Model& model, const Model* reference,
                          std::span<const Rollout> rollouts, const RlOptions& options,
                          int64_t version, int64_t rows_per_pass);

// Forward and backward over part of a step, in passes that `gradient` (of the model) shares out to
// ranks and adds up.
PolicyReport run_minibatch(const Ctx& ctx, const Model& model, std::span<const PolicySample> part,
                           double opsm_delta, const RlOptions& options, int64_t rows_per_pass,
                           SharedGradient& gradient);

// Does the objective look at a reference policy, or have a critic?
bool uses_reference(const RlOptions& options);
bool uses_critic(const RlOptions& options);

}  // namespace fathom
