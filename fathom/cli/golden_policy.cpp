// Policy objectives of a golden folder: log-probs inside and outside the sampling support, forced
// routing, advantages, the sequence mask, and every loss with its gradients.
#include <fmt/core.h>

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/golden.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/rl/advantage.h"
#include "fathom/rl/rl_objective.h"

namespace fathom {
namespace {

using Lists = std::vector<std::vector<double>>;  // per answer, per response token

std::vector<Rollout> read_rollouts(GoldenCheck& check) {
  const Tensor ids = check.read("input_ids"), prompt = check.read("prompt_len"),
               response = check.read("response_len"), group = check.read("group"),
               rewards = check.read("rewards"), keep = check.read("keep_mask"),
               experts = check.read("old.router.1.experts");
  check.mark("valid");
  const int64_t S = ids.view.dim[0], T = ids.view.dim[1], R = keep.view.dim[1],
                W = keep.view.dim[2], A = experts.view.dim[2];
  std::vector<Rollout> out(static_cast<size_t>(S));
  for (int64_t s = 0; s < S; ++s) {
    Rollout& r = out[static_cast<size_t>(s)];
    const auto count = [s](const Tensor& t) { return static_cast<int64_t>(get_element(t, s)); };
    const int64_t n = count(response);
    r.index = s;
    r.group = count(group);
    r.prompt_len = count(prompt);
    r.reward = get_element(rewards, s);
    for (int64_t t = 0; t < r.prompt_len + n; ++t)
      r.tokens.push_back(static_cast<int32_t>(get_element(ids, s * T + t)));
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t w = 0; w < W; ++w)
        if (get_element(keep, (s * R + t) * W + w) != 0)
          r.support.id.push_back(static_cast<int32_t>(w));
      r.support.offset.push_back(std::ssize(r.support.id));
    }
    r.behaviour_logp.resize(static_cast<size_t>(n));
    r.sampled.assign(static_cast<size_t>(n), 1);
    r.weight_version.resize(static_cast<size_t>(n));
    r.experts.layers = {1};
    r.experts.num_experts_per_tok = A;
    for (int64_t i = 0; i < (r.prompt_len + n - 1) * A; ++i)
      r.experts.expert.push_back(static_cast<uint16_t>(get_element(experts, s * T * A + i)));
  }
  return out;
}

struct PolicyGolden {
  GoldenCheck& check;
  Json about;
  int64_t width = 0;  // R
  Model policy, old, ref;
  std::vector<Rollout> rollouts;
  Lists old_full, old_keep, ref_full, ref_keep;
  std::vector<double> advantage_std, advantage_mean;
  std::vector<double> open;  // 0: masked in "v32"

  bool f64() const { return check.runtime().real == DType::kF64; }
  double limit() const { return f64() ? 1e-9 : 3e-5; }
  double gradient_limit() const { return f64() ? 1e-9 : 5e-5; }
  std::vector<const Rollout*> pointers() const {
    std::vector<const Rollout*> out;
    for (const Rollout& r : rollouts) out.push_back(&r);
    return out;
  }
  // Lists of the answers as an expected tensor [S,R], 0 where there is no token.
  void compare(const std::string& name, const Lists& lists) {
    const Tensor t = zeros(check.runtime().arena, DType::kF64, {std::ssize(lists), width});
    for (size_t s = 0; s < lists.size(); ++s)
      std::copy(lists[s].begin(), lists[s].end(), t.as<double>() + static_cast<int64_t>(s) * width);
    check.compare(name, t, limit());
  }
  void compare(const std::string& name, const std::vector<double>& list) {
    check.compare(name, make_view(list.data(), DType::kF64, {std::ssize(list)}), limit());
  }
};

// The policy's model with the numbers of another file.
Model load_variant(const Ctx& ctx, const std::string& folder, const std::string& file) {
  Model model = load_model(ctx, folder, WeightUse::kTrain);
  const SafetensorsFile numbers(file);
  for (const auto* list : {&model.weights.params, &model.weights.buffers})
    for (const Param& p : *list) convert(numbers.tensor(p.name), p.value);
  model.weights.pack(ctx, true);
  return model;
}

Lists check_logp(PolicyGolden& g, const Model& model, const std::string& name, bool keep) {
  Ctx ctx = g.check.runtime().ctx();
  const Replay replay =
      replay_logp(ctx, model, g.pointers(), {.keep_routing = false, .keep_sampling_mask = keep});
  g.compare("logp_" + name + (keep ? "_keep" : ""), replay.logp);
  if (name == "old" && keep)
    g.check.row({.name = "old.router.1.experts",
                 .error = static_cast<double>(replay.figures.routing_total -
                                              replay.figures.routing_equal)});
  return replay.logp;
}

void check_advantages(PolicyGolden& g) {
  const auto advantages = [&](const char* kind, const char* name) {
    PolicyOptions o;
    o.advantage = kind;
    o.advantage_epsilon = g.about.at("advantage_eps").as_double();
    const std::vector<double> A = batch_advantages(g.pointers(), o);
    g.compare(name, A);
    return A;
  };
  g.advantage_std = advantages("mean_std", "advantage_std_n");
  g.advantage_mean = advantages("mean", "advantage_mean_only");
  advantages("mean_sample_std", "advantage_std_n_minus_1");
}

PolicyOptions base_options(const PolicyGolden& g, bool keep_mask) {
  PolicyOptions o;
  o.advantage = "mean_std";
  o.clip_low = g.about.at("clip_eps_low").as_double();
  o.clip_high = g.about.at("clip_eps_high").as_double();
  o.kl_beta = g.about.at("beta").as_double();
  o.keep_routing = false;
  o.keep_sampling_mask = keep_mask;
  return o;
}

PolicyOptions options_of(const PolicyGolden& g, const std::string& loss) {
  PolicyOptions o = base_options(g, loss.starts_with("v32") && loss != "v32_no_keep_mask");
  if (loss.starts_with("v32")) {
    o.kl = "unbiased";
    if (loss != "v32_keep_routing")
      o.opsm_delta = fmt::format("{}", g.about.at("delta").as_double());
    o.mask_kl = loss == "v32_mask_whole_token";
    o.keep_routing = loss == "v32_keep_routing";
  } else if (loss == "grpo") {
    o.kl = "k3";
  } else if (loss == "dr_grpo") {
    o.advantage = "mean";
    o.aggregation = "constant";
    o.aggregation_length = static_cast<int64_t>(g.about.at("dr_grpo_divisor").as_double());
  } else if (loss == "dapo") {
    o.clip_high = g.about.at("dapo_clip_eps_high").as_double();
    o.aggregation = "token";
  } else if (loss == "kl_k3_only" || loss == "kl_unbiased_only") {
    o.surrogate = "off";
    o.kl = loss == "kl_k3_only" ? "k3" : "unbiased";
    o.kl_beta = 1;
  } else {
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: about.json: unknown loss \"{}\"", g.check.folder(), loss));
  }
  return o;
}

std::vector<PolicySample> samples_of(const PolicyGolden& g, const PolicyOptions& o) {
  std::vector<PolicySample> out;
  for (size_t i = 0; i < g.rollouts.size(); ++i)
    out.push_back({.rollout = &g.rollouts[i],
                   .advantage = (o.advantage == "mean" ? g.advantage_mean : g.advantage_std)[i],
                   .ref_logp = (o.keep_sampling_mask ? g.ref_keep : g.ref_full)[i],
                   .old_logp = (o.keep_sampling_mask ? g.old_keep : g.old_full)[i]});
  return out;
}

// Values per token of a loss whose tensors are stored; k3 and unbiased both, whatever the loss
// takes.
void check_tokens(PolicyGolden& g, const std::string& loss, const PolicyReport& report,
                  const std::vector<PolicySample>& samples, const PolicyCounts& counts,
                  PolicyOptions o) {
  const auto per_token = [&](auto field) {
    Lists out;
    for (const SequenceTerms& s : report.terms) out.push_back(s.*field);
    return out;
  };
  g.compare(loss + ".logp", report.logp);
  g.compare(loss + ".ratio", per_token(&SequenceTerms::ratio));
  g.compare(loss + ".token_objective", per_token(&SequenceTerms::objective));
  for (const char* kl : {"k3", "unbiased"}) {
    o.kl = kl;
    Lists values;
    for (size_t i = 0; i < samples.size(); ++i) {
      const std::vector<double> none(report.logp[i].size());
      values.push_back(sequence_terms({.logp = report.logp[i],
                                       .behaviour = samples[i].old_logp,
                                       .ref = samples[i].ref_logp,
                                       .advantage = none,
                                       .beta = 1},
                                      counts, o)
                           .kl);
    }
    g.compare(fmt::format("{}.kl_{}", loss, kl), values);
  }
}

void check_sequence_mask(PolicyGolden& g, const PolicyReport& report) {
  std::vector<double> divergence;
  for (const SequenceTerms& s : report.terms) {
    divergence.push_back(s.divergence);
    g.open.push_back(s.masked ? 0 : 1);
  }
  g.compare("off_policy_mean_log_ratio", divergence);
  g.compare("off_policy_mask", g.open);
}

double norm(const Param& p) {
  if (!p.value.has_grad()) return 0;
  double s = 0;
  for (int64_t i = 0; i < p.value->numel(); ++i)
    s += get_element(p.value.grad(), i) * get_element(p.value.grad(), i);
  return std::sqrt(s);
}

double distance(const View& a, const View& b) {
  double s = 0;
  for (int64_t i = 0; i < a.numel(); ++i)
    s += (get_element(a, i) - get_element(b, i)) * (get_element(a, i) - get_element(b, i));
  return std::sqrt(s);
}

// Gradient norms of all parameters and, where the file has them, all numbers.
void check_gradients(PolicyGolden& g, const std::string& loss, const Json& want,
                     const SafetensorsFile& grads) {
  double total = 0;
  for (const Param& p : g.policy.weights.params) {
    const double size = norm(p), expected = want.at("grad_norms").at(p.name).as_double();
    total += size * size;
    g.check.figure(fmt::format("{} gradient norm {}", loss, p.name), size, expected,
                   g.gradient_limit() * expected);
    const std::string name = loss + "." + p.name;
    if (grads.find(name) && p.value.has_grad())
      g.check.row({.name = "gradient " + name,
                   .error = distance(p.value.grad(), grads.tensor(name)) / expected,
                   .limit = g.gradient_limit()});
    p.value.node()->grad_written = false;
  }
  const double expected = want.at("grad_norm").as_double();
  g.check.figure(loss + " gradient norm", std::sqrt(total), expected,
                 g.gradient_limit() * expected);
}

void check_loss(PolicyGolden& g, const std::string& loss, const Json& want,
                const SafetensorsFile& grads) {
  const PolicyOptions o = options_of(g, loss);
  std::vector<PolicySample> samples = samples_of(g, o);
  // The files mask by the divergences of free routing; a masked answer is one without advantage.
  if (o.keep_routing)
    for (size_t i = 0; i < samples.size(); ++i) samples[i].advantage *= g.open[i];
  PolicyCounts counts = count_policy(samples, o);
  counts.opsm_delta = resolve_opsm_delta(o, {});
  Tape tape;
  Ctx ctx = g.check.training_ctx(&tape);
  const PolicyReport report = run_policy_objective(ctx, g.policy, samples, counts, o);
  const double value = want.at("loss").as_double();
  g.check.figure(loss + " loss", -report.objective, value, g.limit() * std::fabs(value));
  check_gradients(g, loss, want, grads);
  if (g.check.has(loss + ".ratio")) check_tokens(g, loss, report, samples, counts, o);
  if (loss == "v32") check_sequence_mask(g, report);
}

}  // namespace

void check_golden_policy(GoldenCheck& check) {
  const std::string folder = check.folder() + "/", path = folder + "about.json";
  const Json about = Json::parse(read_file(path), path);
  const std::string policy = folder + about.at("policy").as_string();
  const std::string base = policy.substr(0, policy.rfind('/'));
  const Ctx ctx = check.training_ctx();
  PolicyGolden g{.check = check,
                 .about = about,
                 .width = check.read("keep_mask").view.dim[1],
                 .policy = load_model(ctx, base, WeightUse::kTrain),
                 .old = load_variant(ctx, base, folder + about.at("old").as_string()),
                 .ref = load_variant(ctx, base, folder + about.at("ref").as_string()),
                 .rollouts = read_rollouts(check)};
  for (const bool keep : {false, true}) {
    check_logp(g, g.policy, "policy", keep);
    (keep ? g.old_keep : g.old_full) = check_logp(g, g.old, "old", keep);
    (keep ? g.ref_keep : g.ref_full) = check_logp(g, g.ref, "ref", keep);
  }
  check_advantages(g);
  const SafetensorsFile grads(folder + "grads.safetensors");
  for (const auto& [loss, want] : about.at("losses").members()) check_loss(g, loss, want, grads);
}

}  // namespace fathom
