#include "fathom/rl/rl_objective.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/rl/replay_pass.h"
#include "fathom/rl/response_list.h"

namespace fathom {
namespace {

double share(double part, int64_t whole, double otherwise = 0) {
  return whole > 0 ? part / static_cast<double>(whole) : otherwise;
}

bool left_out(const Rollout& r, const PolicyOptions& o) {
  return o.mask_truncated && r.stop == StopReason::kLength;
}

SequenceTerms terms_of(const PolicySample& s, std::span<const double> logp,
                       const PolicyCounts& counts, const PolicyOptions& o) {
  const Rollout& r = *s.rollout;
  const std::vector<double> behaviour =
      s.old_logp.empty() ? sampled_entries(r, r.behaviour_logp) : sampled_entries(r, s.old_logp);
  const std::vector<double> prox = sampled_entries(r, s.prox_logp);
  const std::vector<double> ref = sampled_entries(r, s.ref_logp);
  const std::vector<double> advantage = s.token_advantage.empty()
                                            ? std::vector<double>(logp.size(), s.advantage)
                                            : sampled_entries(r, s.token_advantage);
  return sequence_terms({.logp = logp,
                         .behaviour = behaviour,
                         .prox = prox,
                         .ref = ref,
                         .advantage = advantage,
                         .beta = o.kl == "none" ? 0 : kl_beta_of(o, r.domain),
                         .left_out = left_out(r, o)},
                        counts, o);
}

void record(const PolicySample& s, std::span<const double> logp, SequenceTerms terms,
            PolicyReport* report) {
  const Rollout& r = *s.rollout;
  report->logp.push_back(spread_entries(r, logp));
  const std::vector<double> ref = sampled_entries(r, s.ref_logp);
  for (size_t t = 0; t < ref.size(); ++t) {
    const double d = ref[t] - logp[t];
    report->sum_ref_kl += std::expm1(d) - d;
  }
  report->num_ref_tok += static_cast<int64_t>(ref.size());
  for (const double x : terms.ratio) {
    report->sum_ratio += x;
    report->max_ratio = std::max(report->max_ratio, x);
    report->min_ratio = std::min(report->min_ratio, x);
  }
  ++report->num_seq;
  report->num_tok += static_cast<int64_t>(logp.size());
  report->objective += terms.total;
  report->sum_divergence += terms.divergence;
  report->num_clipped += terms.num_clipped;
  report->num_masked_seq += terms.masked;
  report->terms.push_back(std::move(terms));
}

double indexer_kl(const StepOut& out, int64_t num_rows) {
  double sum = 0;
  for (const LayerOut& layer : out.layers)
    for (int64_t i = 0; layer.kl_T && i < layer.kl_T.view.numel(); ++i)
      sum += get_element(layer.kl_T, i);
  return share(sum, num_rows);
}

PolicyReport run_pass(Ctx& ctx, const Model& policy, std::span<const PolicySample> samples,
                      std::span<const Rollout* const> rollouts, const PolicyCounts& counts,
                      const PolicyOptions& o, const ReplayOptions& replay) {
  ReplayPass pass = make_replay_pass(ctx, policy, rollouts, replay);
  if (o.indexer_kl_weight != 0)
    pass.step.indexer_kl_scale = share(o.indexer_kl_weight, counts.num_rows);
  const ReplayedPass run = run_replay_pass(ctx, policy, pass, replay.measure);
  PolicyReport report;
  report.replay = replay_figures(pass, run);
  report.indexer_kl = indexer_kl(run.out, counts.num_rows);
  std::vector<double> dlogp;
  size_t first = 0;
  for (const PolicySample& s : samples) {
    const auto n = static_cast<size_t>(s.rollout->num_sampled());
    const auto logp = std::span<const double>(run.head.logp).subspan(first, n);
    SequenceTerms terms = terms_of(s, logp, counts, o);
    for (const double c : terms.coefficient) dlogp.push_back(-c);
    record(s, logp, std::move(terms), &report);
    first += n;
  }
  if (!ctx.tape) return report;
  head_logp_backward(ctx, run.rows_TD, policy.weights.lm_head, pass.targets, dlogp);
  ctx.tape->backward();
  return report;
}

}  // namespace

void ReplayFigures::add(const ReplayFigures& part) {
  entropy += part.entropy;
  kept_mass += part.kept_mass;
  num_singleton += part.num_singleton;
  routing_equal += part.routing_equal;
  routing_total += part.routing_total;
  selection_equal += part.selection_equal;
  selection_total += part.selection_total;
  max_mismatch = std::max(max_mismatch, part.max_mismatch);
  sum_mismatch_k3 += part.sum_mismatch_k3;
  num_tok += part.num_tok;
}

double ReplayFigures::mean_entropy() const { return share(entropy, num_tok); }
double ReplayFigures::mean_kept_mass() const { return share(kept_mass, num_tok); }
double ReplayFigures::singleton_share() const {
  return share(static_cast<double>(num_singleton), num_tok);
}
double ReplayFigures::mismatch_kl() const { return share(sum_mismatch_k3, num_tok); }
double ReplayFigures::routing_agreement() const {
  return share(static_cast<double>(routing_equal), routing_total, 1);
}

double ReplayFigures::selection_agreement() const {
  return share(static_cast<double>(selection_equal), selection_total, 1);
}

double PolicyReport::mean_ratio() const { return share(sum_ratio, num_tok); }
double PolicyReport::mean_ref_kl() const { return share(sum_ref_kl, num_ref_tok); }
double PolicyReport::clip_share() const { return share(static_cast<double>(num_clipped), num_tok); }
double PolicyReport::masked_share() const {
  return share(static_cast<double>(num_masked_seq), num_seq);
}

double PolicyReport::mean_divergence() const { return share(sum_divergence, num_seq); }

double PolicyReport::divergence_quantile(double q) const {
  std::vector<double> d;
  for (const SequenceTerms& s : terms) d.push_back(s.divergence);
  return quantile(std::move(d), q);
}

void PolicyReport::add(const PolicyReport& part) {
  num_seq += part.num_seq;
  num_tok += part.num_tok;
  objective += part.objective;
  sum_ratio += part.sum_ratio;
  max_ratio = std::max(max_ratio, part.max_ratio);
  min_ratio = std::min(min_ratio, part.min_ratio);
  sum_ref_kl += part.sum_ref_kl;
  num_ref_tok += part.num_ref_tok;
  num_clipped += part.num_clipped;
  num_masked_seq += part.num_masked_seq;
  sum_divergence += part.sum_divergence;
  indexer_kl += part.indexer_kl;
  replay.add(part.replay);
  logp.insert(logp.end(), part.logp.begin(), part.logp.end());
  terms.insert(terms.end(), part.terms.begin(), part.terms.end());
}

Replay replay_logp(Ctx& ctx, const Model& model, std::span<const Rollout* const> rollouts,
                   const ReplayOptions& options) {
  Ctx forward_only = ctx;
  forward_only.tape = nullptr;
  Replay replay;
  for (const Rollout* r : rollouts) replay.logp.emplace_back(r->sampled.size());
  for (size_t first = 0; first < rollouts.size();) {
    const size_t n = pass_size(rollouts, first, options.rows_per_pass);
    const ReplayPass pass =
        make_replay_pass(forward_only, model, rollouts.subspan(first, n), options);
    const ReplayedPass run = run_replay_pass(forward_only, model, pass, options.measure);
    replay.figures.add(replay_figures(pass, run));
    for (size_t k = 0; k < pass.tokens.size(); ++k)
      replay.logp[first + pass.tokens[k].rollout][pass.tokens[k].position] = run.head.logp[k];
    first += n;
  }
  return replay;
}

PolicyCounts count_policy(std::span<const PolicySample> batch, const PolicyOptions& options) {
  PolicyCounts c;
  for (const PolicySample& s : batch) {
    c.num_rows += static_cast<int64_t>(s.rollout->tokens.size()) - 1;
    if (left_out(*s.rollout, options)) continue;
    const int64_t n = s.rollout->num_sampled();
    ++c.num_seq;
    c.num_tok += n;
    c.longest = std::max(c.longest, n);
  }
  return c;
}

PolicyReport run_policy_objective(Ctx& ctx, const Model& policy, std::span<const PolicySample> part,
                                  const PolicyCounts& counts, const PolicyOptions& options,
                                  ReplayOptions replay) {
  check_policy_options(options);
  replay.keep_routing = options.keep_routing;
  replay.keep_sampling_mask = options.keep_sampling_mask;
  std::vector<const Rollout*> rollouts;
  for (const PolicySample& s : part) rollouts.push_back(s.rollout);
  PolicyReport report;
  for (size_t first = 0; first < part.size();) {
    const size_t n = pass_size(rollouts, first, replay.rows_per_pass);
    report.add(run_pass(ctx, policy, part.subspan(first, n),
                        std::span<const Rollout* const>(rollouts).subspan(first, n), counts,
                        options, replay));
    first += n;
  }
  return report;
}

}  // namespace fathom
