#include "fathom/rl/rl_figures.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace fathom {
namespace {

constexpr size_t kUsualSteps = 16;  // of which the median gradient norm is the usual one
constexpr size_t kLeastSteps = 8;

struct Mean {
  double sum = 0, n = 0;
  void add(double x) {
    sum += x;
    n += 1;
  }
  double value() const { return n > 0 ? sum / n : 0; }
};

// Means over the answers of a batch.
struct AnswerMeans {
  Mean reward, right, length, length_right, length_wrong, truncated, lost;
  double longest = 0, staleness_max = 0;
  Mean staleness;  // versions, over tokens
  Mean agreement;  // of the rubric with what is right, as in TaskScore
  std::map<std::string, Mean> parts;
};

AnswerMeans answer_means(const RolloutBatch& batch, int64_t version) {
  AnswerMeans m;
  for (const Rollout& r : batch.rollouts) {
    m.lost.add(can_learn_from(r) ? 0 : 1);
    if (!can_learn_from(r)) continue;
    const auto length = static_cast<double>(r.num_sampled());
    const int right = answer_right(r);
    m.reward.add(r.reward);
    m.length.add(length);
    if (right >= 0) {
      m.right.add(right);
      (right ? m.length_right : m.length_wrong).add(length);
    }
    m.longest = std::max(m.longest, length);
    m.truncated.add(r.stop == StopReason::kLength ? 1 : 0);
    for (const RewardPart& p : r.rewards) {
      m.parts[p.name].add(p.value);
      if (p.name == "rubric" && right >= 0) m.agreement.add((p.value > 0.5) == (right == 1));
    }
    for (size_t t = 0; t < r.sampled.size(); ++t) {
      if (!r.sampled[t]) continue;
      const auto age = static_cast<double>(version - r.weight_version[t]);
      m.staleness.add(age);
      m.staleness_max = std::max(m.staleness_max, age);
    }
  }
  return m;
}

double useful_share(const RolloutBatch& batch) {
  Mean useful;
  for (const auto& group : groups_of(batch.rollouts)) useful.add(group_has_signal(group) ? 1 : 0);
  return useful.value();
}

double tokens_per_s(const RlStepFigures& f) {
  return f.rollout.seconds > 0 ? static_cast<double>(f.rollout.sampled_tok) / f.rollout.seconds : 0;
}

void add_policy(const PolicyReport& p, const RlOptions& o, std::vector<Metric>* m) {
  m->emplace_back("ratio/mean", p.mean_ratio());
  m->emplace_back("ratio/max", p.max_ratio);
  m->emplace_back("ratio/min", p.min_ratio);
  m->emplace_back("masked/clipped_tokens", p.clip_share());
  m->emplace_back("masked/sequences", p.masked_share());
  m->emplace_back("support/singleton_share", p.replay.singleton_share());
  m->emplace_back("divergence/mean", p.mean_divergence());
  m->emplace_back("divergence/median", p.divergence_quantile(0.5));
  m->emplace_back("divergence/p95", p.divergence_quantile(0.95));
  m->emplace_back("divergence/largest", p.divergence_quantile(1));
  if (p.num_ref_tok > 0) m->emplace_back("kl/reference", p.mean_ref_kl());
  if (p.indexer_kl != 0) m->emplace_back("indexer/kl", p.indexer_kl);
  if (!o.loop.measure) return;
  m->emplace_back("entropy/token", p.replay.mean_entropy());
  m->emplace_back("support/kept_mass", p.replay.mean_kept_mass());
}

}  // namespace

std::vector<Metric> rl_metrics(const RlStepFigures& f, const RlOptions& options) {
  const AnswerMeans a = answer_means(*f.batch, f.version);
  std::vector<Metric> m = {{"reward/mean", a.reward.value()}, {"reward/right", a.right.value()}};
  for (const auto& [name, mean] : a.parts) m.emplace_back("reward/" + name, mean.value());
  if (a.agreement.n > 0) m.emplace_back("judge/agreement", a.agreement.value());
  m.emplace_back("length/mean", a.length.value());
  m.emplace_back("length/longest", a.longest);
  if (a.length_right.n > 0) m.emplace_back("length/right", a.length_right.value());
  if (a.length_wrong.n > 0) m.emplace_back("length/wrong", a.length_wrong.value());
  m.emplace_back("groups/useful_share", useful_share(*f.batch));
  m.emplace_back("groups/truncated_share", a.truncated.value());
  m.emplace_back("groups/lost_share", a.lost.value());
  m.emplace_back("groups/rounds", static_cast<double>(f.batch->rounds));
  m.emplace_back("staleness/mean", a.staleness.value());
  m.emplace_back("staleness/max", a.staleness_max);
  add_policy(f.policy, options, &m);
  if (std::isfinite(f.prepared->opsm_delta))
    m.emplace_back("divergence/delta", f.prepared->opsm_delta);
  if (f.critic.num_tok > 0) {
    m.emplace_back("critic/loss", f.critic.loss);
    m.emplace_back("critic/explained_variance", f.critic.explained_variance());
  }
  if (f.prepared->agreement.num_tok > 0) {
    m.emplace_back("mismatch/kl", f.prepared->agreement.mismatch_kl());
    m.emplace_back("mismatch/largest_logp", f.prepared->agreement.max_abs_logp);
    // With the record's experts and supports; further mini-batches see other weights.
    if (!f.prepared->fresh && options.loop.minibatches * options.loop.epochs == 1)
      m.emplace_back("mismatch/replayed_kl", f.policy.replay.mismatch_kl());
    m.emplace_back("agreement/logp", f.prepared->agreement.logp_agreement());
    m.emplace_back("agreement/support", f.prepared->agreement.support_agreement());
    m.emplace_back("agreement/routing", f.prepared->agreement.routing_agreement());
    m.emplace_back("agreement/selection", f.prepared->agreement.selection_agreement());
  }
  m.emplace_back("speed/rollout_tok_per_s", tokens_per_s(f));
  for (const auto& [name, s] : {std::pair{"rollout", f.rollout_s},
                                {"reward", f.reward_s},
                                {"agreement", f.prepared->agreement_s},
                                {"replay", f.prepared->replay_s},
                                {"update", f.update_s}})
    m.emplace_back(fmt::format("time/{}_s", name), s);
  return m;
}

std::vector<Metric> eval_metrics(std::span<const TaskScore> scores) {
  const TaskScore& all = scores[0];
  std::vector<Metric> m = {{"eval/accuracy", all.accuracy}, {"eval/truncated", all.truncated}};
  if (scores.size() > 2)
    for (const TaskScore& s : scores.subspan(1))
      m.emplace_back("eval/accuracy_" + s.domain, s.accuracy);
  if (all.pass_at.size() > 1) {
    int64_t k = 1;
    for (const double p : all.pass_at) {
      m.emplace_back(fmt::format("eval/pass_at_{}", k), p);
      k *= 2;
    }
  }
  m.emplace_back("eval/thinking", all.thinking);
  m.emplace_back("eval_length", all.tokens);
  m.emplace_back("eval_reward", all.reward);
  return m;
}

std::string rl_detail(const RlStepFigures& f) {
  const AnswerMeans a = answer_means(*f.batch, f.version);
  const double all_s =
      f.rollout_s + f.reward_s + f.prepared->agreement_s + f.prepared->replay_s + f.update_s;
  const auto percent = [&](double s) { return all_s > 0 ? 100 * s / all_s : 0; };
  std::string out =
      fmt::format("reward {:.3f} right {:.3f} len {:.0f} ent {:.3f}", a.reward.value(),
                  a.right.value(), a.length.value(), f.policy.replay.mean_entropy());
  if (f.policy.num_ref_tok > 0) out += fmt::format(" kl {:.2g}", f.policy.mean_ref_kl());
  if (f.prepared->agreement.num_tok > 0)
    out += fmt::format(" mismatch {:.2g}", f.prepared->agreement.mismatch_kl());
  return out + fmt::format(
                   " | rollout {:.0f}% ({:.0f} tok/s) reward {:.0f}% check {:.0f}% update {:.0f}%",
                   percent(f.rollout_s), tokens_per_s(f), percent(f.reward_s),
                   percent(f.prepared->agreement_s + f.prepared->replay_s), percent(f.update_s));
}

std::vector<std::string> RlAlarms::of_rollouts(const RlStepFigures& f) const {
  std::vector<std::string> out;
  if (rewarded_ && useful_share(*f.batch) == 0)
    out.push_back("all groups have equal rewards: nothing to learn from");
  if (f.prepared->fresh && !f.prepared->agreement.exact())
    out.push_back(fmt::format(
        "trainer and rollouts disagree at the same weights: mismatch {:.3g}, "
        "routing {:.6f}, selection {:.6f}, supports {:.6f}",
        f.prepared->agreement.mismatch_kl(), f.prepared->agreement.routing_agreement(),
        f.prepared->agreement.selection_agreement(), f.prepared->agreement.support_agreement()));
  return out;
}

std::vector<std::string> RlAlarms::of_update(double entropy, double grad_norm) {
  std::vector<std::string> out;
  const double limit = options_.entropy_alarm;
  if (options_.measure && entropy < limit && (state_.entropy < 0 || state_.entropy >= limit))
    out.push_back(fmt::format("entropy collapse: {:.4g} of a token, below {:.4g}", entropy, limit));
  state_.entropy = entropy;
  std::vector<double>& norms = state_.grad_norms;
  if (norms.size() >= kLeastSteps) {
    std::vector<double> sorted = norms;
    std::ranges::sort(sorted);
    const double usual = sorted[sorted.size() / 2];
    if (usual > 0 && grad_norm > options_.gradient_alarm * usual)
      out.push_back(fmt::format("gradient spike: norm {:.4g}, usually {:.4g}", grad_norm, usual));
  }
  norms.push_back(grad_norm);
  if (norms.size() > kUsualSteps) norms.erase(norms.begin());
  return out;
}

}  // namespace fathom
