#include "fathom/rl/rl_update.h"

#include <algorithm>
#include <chrono>

#include "fathom/rl/advantage.h"
#include "fathom/rl/rollout_source.h"

namespace fathom {
namespace {

using Pointers = std::vector<const Rollout*>;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ReplayOptions replay_options(const ModelConfig& config, const RlOptions& o, int64_t rows_per_pass) {
  return {.keep_routing = o.policy.keep_routing,
          .keep_sampling_mask = o.policy.keep_sampling_mask,
          .measure = o.loop.measure,
          .selection = policy_selection(config),
          .rows_per_pass = rows_per_pass};
}

Pointers learnable(std::span<const Rollout> rollouts, const LoopOptions& loop) {
  Pointers out;
  for (const auto& group : groups_of(rollouts)) {
    if (loop.dynamic_rounds > 0 && !group_has_signal(group)) continue;
    for (const Rollout& r : group)
      if (can_learn_from(r)) out.push_back(&r);
  }
  return out;
}

bool sampled_by(std::span<const Rollout* const> rollouts, int64_t version) {
  return std::ranges::all_of(rollouts, [&](const Rollout* r) {
    for (size_t t = 0; t < r->sampled.size(); ++t)
      if (r->sampled[t] && r->weight_version[t] != version) return false;
    return true;
  });
}

// The trainer's own log-probs of the weights that are about to be updated.
bool uses_prox(const PolicyOptions& o) {
  return o.old == "prox" || o.importance != "none" || o.opsm_delta.starts_with("auto");
}

// True where the comparison has shown that the trainer's log-probs are those of the record, so that
// no forward pass is needed to know them.
bool record_is_prox(const PreparedStep& p, const PolicyOptions& o) {
  return p.compared == p.rollouts.size() && p.agreement.exact() &&
         std::ranges::all_of(p.rollouts, [&](const Rollout* r) {
           return o.keep_sampling_mask || r->support.id.empty();
         });
}

// D of the sequence mask before any update.
std::vector<double> divergences(std::span<const PolicySample> samples) {
  std::vector<double> out;
  for (const PolicySample& s : samples) {
    double sum = 0;
    for (size_t t = 0; t < s.prox_logp.size(); ++t)
      if (s.rollout->sampled[t])
        sum += static_cast<double>(s.rollout->behaviour_logp[t]) - s.prox_logp[t];
    out.push_back(sum / static_cast<double>(s.rollout->num_sampled()));
  }
  return out;
}

void add_logp(Ctx ctx, const Model& model, const Model* reference, const RlOptions& o,
              int64_t rows_per_pass, PreparedStep* p) {
  ReplayOptions replay = replay_options(model.config, o, rows_per_pass);
  replay.measure = false;
  if (uses_prox(o.policy) && record_is_prox(*p, o.policy)) {
    for (PolicySample& s : p->samples)
      s.prox_logp.assign(s.rollout->behaviour_logp.begin(), s.rollout->behaviour_logp.end());
  } else if (uses_prox(o.policy)) {
    Replay own = replay_logp(ctx, model, p->rollouts, replay);
    for (size_t i = 0; i < p->samples.size(); ++i) p->samples[i].prox_logp = std::move(own.logp[i]);
  }
  if (!reference) return;
  replay.keep_routing = false;
  Replay ref = replay_logp(ctx, *reference, p->rollouts, replay);
  for (size_t i = 0; i < p->samples.size(); ++i) p->samples[i].ref_logp = std::move(ref.logp[i]);
}

}  // namespace

bool uses_critic(const RlOptions& o) { return o.policy.advantage == "critic"; }

bool uses_reference(const RlOptions& o) {
  const PolicyOptions& p = o.policy;
  return (p.kl != "none" && (p.kl_beta > 0 || !p.kl_domains.empty())) ||
         (uses_critic(o) && o.critic.gae.reward_kl_beta != 0);
}

PreparedStep prepare_step(const Ctx& ctx, const Model& model, const Model* reference,
                          std::span<const Rollout> rollouts, const RlOptions& o, int64_t version,
                          int64_t rows_per_pass) {
  PreparedStep p{.rollouts = learnable(rollouts, o.loop)};
  const double begin_s = now_s();
  p.fresh = o.loop.rollout_bits == 0 && sampled_by(p.rollouts, version);
  p.compared = p.rollouts.size();
  if (o.loop.agreement_rollouts >= 0)
    p.compared = std::min(p.compared, static_cast<size_t>(o.loop.agreement_rollouts));
  Ctx forward = ctx;
  p.agreement = measure_agreement(forward, model, std::span(p.rollouts).first(p.compared),
                                  policy_selection(model.config), rows_per_pass);
  p.agreement_s = now_s() - begin_s;
  const std::vector<double> advantages = batch_advantages(p.rollouts, o.policy);
  for (size_t i = 0; i < p.rollouts.size(); ++i)
    p.samples.push_back({.rollout = p.rollouts[i], .advantage = advantages[i]});
  if (p.samples.empty()) return p;
  add_logp(ctx, model, reference, o, rows_per_pass, &p);
  p.opsm_delta = resolve_opsm_delta(
      o.policy, uses_prox(o.policy) ? divergences(p.samples) : std::vector<double>());
  p.replay_s = now_s() - begin_s - p.agreement_s;
  return p;
}

PolicyReport run_minibatch(const Ctx& ctx, const Model& model, std::span<const PolicySample> part,
                           double opsm_delta, const RlOptions& o, int64_t rows_per_pass,
                           SharedGradient& gradient) {
  PolicyCounts counts = count_policy(part, o.policy);
  counts.opsm_delta = opsm_delta;
  const auto passes = cut_passes(
      part, rows_per_pass, [](const PolicySample& s) { return std::ssize(s.rollout->tokens) - 1; });
  return gradient.sum<PolicyReport>(passes.size(), [&](size_t i) {
    Tape tape;
    Ctx pass = ctx;
    pass.tape = &tape;
    return run_policy_objective(pass, model, passes[i], counts, o.policy,
                                replay_options(model.config, o, rows_per_pass));
  });
}

}  // namespace fathom
