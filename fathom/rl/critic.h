// The critic of PPO beside a policy in training: advantages before the update, one step of its own
// with every mini-batch.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "fathom/rl/ppo.h"
#include "fathom/rl/value_trainer.h"
#include "fathom/train/shared_gradient.h"

namespace fathom {

struct CriticOptions {
  std::string critic;
  double critic_learning_rate = 1e-4;
  ValueOptions value;
  GaeOptions gae;

  void fields(OptionSet& o) {
    o.add("critic", &critic, "folder to begin with; empty: the policy's weights, a head of zeros");
    o.add("critic_learning_rate", &critic_learning_rate, "of the critic");
    value.fields(o);
    gae.fields(o);
  }
};

class Critic {
 public:
  Critic(const Ctx& ctx, const Model& policy, const CriticOptions& options,
         const OptimizerOptions& optimizer, int64_t rows_per_pass, Comm& comm);

  // Sets the token advantages of samples, whose ref_logp is there if reward_kl_beta is not 0, and
  // remembers the value targets of their rollouts until the next call.
  void judge(std::span<PolicySample> samples);
  // One update toward the targets of samples that the last judge() has seen.
  ValueReport update(std::span<const PolicySample> part);

  void save(const std::string& folder) const { trainer_.save(folder); }
  void load(const std::string& folder) { trainer_.load(folder); }
  const ValueModel& model() const { return trainer_.model(); }

 private:
  const Ctx& ctx_;
  CriticOptions options_;
  ValueTrainer trainer_;
  SharedGradient gradient_;
  std::map<const Rollout*, ValueSample> targets_;
};

}  // namespace fathom
