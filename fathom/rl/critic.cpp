#include "fathom/rl/critic.h"

#include <utility>

namespace fathom {

Critic::Critic(const Ctx& ctx, const Model& policy, const CriticOptions& options,
               const OptimizerOptions& optimizer, int64_t rows_per_pass, Comm& comm)
    : ctx_(ctx),
      options_(options),
      trainer_(ctx, policy, options.critic, kValueHeadName, optimizer),
      gradient_(ctx, comm, trainer_.model().model.weights.params) {
  options_.value.rows_per_pass = rows_per_pass;
}

void Critic::judge(std::span<PolicySample> samples) {
  std::vector<const Rollout*> rollouts;
  std::vector<std::vector<double>> ref_logp;
  for (const PolicySample& s : samples) {
    rollouts.push_back(s.rollout);
    if (options_.gae.reward_kl_beta != 0) ref_logp.push_back(s.ref_logp);
  }
  Ctx ctx = ctx_;
  const auto values = rollout_values(ctx, trainer_.model(), rollouts, options_.value);
  PpoBatch batch = make_ppo_batch(rollouts, values, ref_logp, options_.gae);
  targets_.clear();
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].token_advantage = std::move(batch.policy[i].token_advantage);
    targets_[samples[i].rollout] = std::move(batch.value[i]);
  }
}

ValueReport Critic::update(std::span<const PolicySample> part) {
  std::vector<ValueSample> samples;
  int64_t num_tok = 0;
  for (const PolicySample& s : part) {
    samples.push_back(targets_.at(s.rollout));
    num_tok += s.rollout->num_sampled();
  }
  const auto passes =
      cut_passes(std::span<const ValueSample>(samples), options_.value.rows_per_pass,
                 [](const ValueSample& s) { return std::ssize(s.rollout->tokens) - 1; });
  const auto report = gradient_.sum<ValueReport>(passes.size(), [&](size_t i) {
    Tape tape;
    Ctx pass = ctx_;
    pass.tape = &tape;
    return run_value_objective(pass, trainer_.model(), passes[i], num_tok, options_.value);
  });
  trainer_.step(options_.critic_learning_rate);
  return report;
}

}  // namespace fathom
