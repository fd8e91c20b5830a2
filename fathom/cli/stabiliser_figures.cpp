#include "fathom/cli/stabiliser_figures.h"

#include <algorithm>
#include <cmath>

#include "fathom/ops/basic.h"
#include "fathom/rl/advantage.h"
#include "fathom/rl/agreement.h"
#include "fathom/rl/policy_loss.h"
#include "fathom/rl/replay_pass.h"
#include "fathom/rl/rollout_source.h"

namespace fathom {
namespace {

using List = std::vector<double>;
using Pointers = std::vector<const Rollout*>;

constexpr int64_t kRowsPerPass = 4096;

std::vector<Rollout> sample(const StabiliserProbe& probe, const Model& model,
                            const RlOptions& options) {
  std::vector<Rollout> all =
      RolloutSource(probe.ctx, model, probe.tokenizer, options, 0).next(1).rollouts;
  std::erase_if(all, [](const Rollout& r) { return !can_learn_from(r); });
  return all;
}

Pointers pointers_to(const std::vector<Rollout>& rollouts) {
  Pointers out;
  for (const Rollout& r : rollouts) out.push_back(&r);
  return out;
}

Replay replay(const Ctx& ctx, const Model& model, const Pointers& rollouts, bool routing,
              bool mask) {
  Ctx forward = ctx;
  return replay_logp(forward, model, rollouts,
                     {.keep_routing = routing,
                      .keep_sampling_mask = mask,
                      .measure = true,
                      .selection = policy_selection(model.config),
                      .rows_per_pass = kRowsPerPass});
}

// log(pi / mu) of the sampled tokens of one answer
List log_ratios(const Rollout& r, const List& logp) {
  List out;
  for (size_t t = 0; t < logp.size(); ++t)
    if (r.sampled[t]) out.push_back(logp[t] - static_cast<double>(r.behaviour_logp[t]));
  return out;
}

List ratios(const Pointers& rollouts, const Replay& now) {
  List out;
  for (size_t i = 0; i < rollouts.size(); ++i)
    for (const double x : log_ratios(*rollouts[i], now.logp[i])) out.push_back(std::exp(x));
  return out;
}

double mean(const List& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// Share of the record's decisions (rows times layers) that a forced forward pass used.
double used_agreement(const Ctx& ctx, const Model& model, const Pointers& rollouts) {
  Ctx forward_only = ctx;
  const ReplayPass pass = make_replay_pass(forward_only, model, rollouts,
                                           {.selection = policy_selection(model.config)});
  const StepOut out = forward(forward_only, model, pass.step);
  int64_t equal = 0, total = 0;
  for (size_t l = 0; l < out.layers.size(); ++l) {
    if (!out.layers[l].routing) continue;
    const Tensor& used = out.layers[l].routing->experts_TA;
    const auto A = static_cast<size_t>(used.view.dim[1]);
    const int32_t* a = used.as<int32_t>();
    const auto* b = static_cast<const int32_t*>(pass.step.forced_experts[l].data);
    for (int64_t row = 0; row < used.view.dim[0]; ++row, a += A, b += A, ++total)
      equal += std::is_permutation(a, a + A, b, b + A);
  }
  return total > 0 ? static_cast<double>(equal) / static_cast<double>(total) : 1;
}

// ---- gradients of the KL -----------------------------------------------------------------------

// log softmax of the model's logits at the sampled tokens of one pass: [T][V]
std::vector<List> log_softmax_rows(const Ctx& ctx, const Model& model, const Pointers& rollouts) {
  Ctx forward_only = ctx;
  const ReplayPass pass =
      make_replay_pass(forward_only, model, rollouts,
                       {.keep_routing = false, .selection = policy_selection(model.config)});
  const StepOut out = forward(forward_only, model, pass.step);
  const Value rows = select_rows(forward_only, out.hidden_TD, pass.row.data(),
                                 static_cast<int64_t>(pass.row.size()));
  const Value z_TV = logits(forward_only, model, rows);
  const auto V = static_cast<size_t>(model.config.vocab_size);
  std::vector<List> result;
  for (size_t t = 0; t < pass.row.size(); ++t) {
    List row(V);
    for (size_t v = 0; v < V; ++v)
      row[v] = get_element(z_TV.view(), static_cast<int64_t>(t * V + v));
    const double largest = *std::ranges::max_element(row);
    double mass = 0;
    for (const double z : row) mass += std::exp(z - largest);
    for (double& z : row) z -= largest + std::log(mass);
    result.push_back(std::move(row));
  }
  return result;
}

struct Estimator {
  const char *name, *kl;
  bool from_policy;     // samples from pi, not from mu
  bool detached_ratio;  // times pi / mu without its gradient
};
constexpr Estimator kEstimators[] = {
    {"k3", "k3", true, false},
    {"k3", "k3", false, false},
    {"ratio k3, gradient through the ratio", "unbiased", false, false},
    {"ratio k3, ratio detached", "k3", false, true},
    {"k2", "k2", true, false},
    {"k1", "k1", true, false}};

// Adds sum_a mu(a) c(a) (1[a = b] - pi(b)), c the slope of the estimator at token a.
void add_expected(const List& mu, const List& pi, const List& ref, const Estimator& e,
                  List* gradient) {
  PolicyOptions o;
  o.surrogate = "off";
  o.aggregation = "constant";
  o.aggregation_length = 1;
  o.kl = e.kl;
  const List& from = e.from_policy ? pi : mu;
  const List advantage(pi.size());
  const SequenceTerms terms =
      sequence_terms({.logp = pi, .behaviour = from, .ref = ref, .advantage = advantage, .beta = 1},
                     {.num_seq = 1}, o);
  const size_t first = gradient->size();
  gradient->resize(first + pi.size());
  double sum = 0;
  for (size_t a = 0; a < pi.size(); ++a) {
    const double weight = std::exp(from[a]) * (e.detached_ratio ? std::exp(pi[a] - from[a]) : 1.0);
    (*gradient)[first + a] = -weight * terms.coefficient[a];  // coefficients are of -KL
    sum += (*gradient)[first + a];
  }
  for (size_t b = 0; b < pi.size(); ++b) (*gradient)[first + b] -= std::exp(pi[b]) * sum;
}

void add_exact(const List& pi, const List& ref, List* gradient) {
  double kl = 0;
  for (size_t a = 0; a < pi.size(); ++a) kl += std::exp(pi[a]) * (pi[a] - ref[a]);
  for (size_t b = 0; b < pi.size(); ++b)
    gradient->push_back(std::exp(pi[b]) * (pi[b] - ref[b] - kl));
}

double dot(const List& a, const List& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

KlGradient compare(const Estimator& e, const List& found, const List& exact) {
  List difference(exact.size());
  for (size_t i = 0; i < exact.size(); ++i) difference[i] = found[i] - exact[i];
  const double norms = std::sqrt(dot(found, found) * dot(exact, exact));
  return {.estimator = e.name,
          .samples = e.from_policy ? "policy" : "behaviour",
          .relative_error = std::sqrt(dot(difference, difference) / dot(exact, exact)),
          .cosine = norms > 0 ? dot(found, exact) / norms : 0};
}

}  // namespace

MaskFigures measure_mask(const StabiliserProbe& probe, const Model& model, double top_p) {
  RlOptions o = probe.options;
  o.rollout.top_p = top_p;
  const std::vector<Rollout> rollouts = sample(probe, model, o);
  const Pointers all = pointers_to(rollouts);
  const Replay with = replay(probe.ctx, model, all, true, true);
  const Replay without = replay(probe.ctx, model, all, true, false);
  const List kept = ratios(all, with);
  MaskFigures f{.top_p = top_p,
                .kept_mass = with.figures.mean_kept_mass(),
                .singleton_share = with.figures.singleton_share(),
                .mean_ratio_with = mean(kept),
                .mean_ratio_without = mean(ratios(all, without))};
  for (const double r : kept) f.worst_ratio_with = std::max(f.worst_ratio_with, std::fabs(r - 1));
  return f;
}

RoutingFigures measure_routing(const StabiliserProbe& probe, const Model& model, int64_t bits) {
  RlOptions o = probe.options;
  o.loop.rollout_bits = bits;
  const std::vector<Rollout> rollouts = sample(probe, model, o);
  const Pointers all = pointers_to(rollouts);
  Ctx ctx = probe.ctx;
  const Agreement own =
      measure_agreement(ctx, model, all, policy_selection(model.config), kRowsPerPass);
  const ReplayFigures without = replay(probe.ctx, model, all, false, true).figures;
  const ReplayFigures with = replay(probe.ctx, model, all, true, true).figures;
  return {.bits = bits,
          .differing = 1 - own.routing_agreement(),
          .kl_without = without.mismatch_kl(),
          .kl_with = with.mismatch_kl(),
          .largest_without = without.max_mismatch,
          .largest_with = with.max_mismatch,
          .agreement_with = used_agreement(probe.ctx, model, all)};
}

std::vector<KlGradient> measure_kl_gradients(const StabiliserProbe& probe, const Model& behaviour,
                                             const Model& policy, const Model& reference) {
  RlOptions o = probe.options;
  o.rollout.top_p = o.rollout.temperature = 1;
  const std::vector<Rollout> rollouts = sample(probe, behaviour, o);
  const Pointers all = pointers_to(rollouts);
  const auto mu = log_softmax_rows(probe.ctx, behaviour, all),
             pi = log_softmax_rows(probe.ctx, policy, all),
             ref = log_softmax_rows(probe.ctx, reference, all);
  List exact;
  for (size_t t = 0; t < pi.size(); ++t) add_exact(pi[t], ref[t], &exact);
  std::vector<KlGradient> out;
  for (const Estimator& e : kEstimators) {
    List found;
    for (size_t t = 0; t < pi.size(); ++t) add_expected(mu[t], pi[t], ref[t], e, &found);
    out.push_back(compare(e, found, exact));
  }
  return out;
}

SequenceDivergences measure_divergences(const StabiliserProbe& probe, const Model& behaviour,
                                        const Model& policy) {
  const std::vector<Rollout> rollouts = sample(probe, behaviour, probe.options);
  const Pointers all = pointers_to(rollouts);
  const List advantages = batch_advantages(all, PolicyOptions{});
  const Replay now = replay(probe.ctx, policy, all, true, true);
  SequenceDivergences out;
  for (size_t i = 0; i < all.size(); ++i)
    (advantages[i] < 0 ? out.negative : out.other)
        .push_back(-mean(log_ratios(*all[i], now.logp[i])));
  std::ranges::sort(out.negative);
  std::ranges::sort(out.other);
  return out;
}

}  // namespace fathom
