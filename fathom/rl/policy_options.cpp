#include "fathom/rl/policy_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// What all forms without replay share: the papers before V3.2 sample from the whole distribution.
PolicyOptions plain() {
  PolicyOptions o;
  o.keep_routing = o.keep_sampling_mask = false;
  return o;
}

PolicyOptions grpo(const char* advantage) {
  PolicyOptions o = plain();
  o.advantage = advantage;
  return o;
}

PolicyOptions with_kl(PolicyOptions o, const char* kl, double beta) {
  o.kl = kl;
  o.kl_beta = beta;
  return o;
}

PolicyOptions v32(const char* advantage) {
  PolicyOptions o;
  o.advantage = advantage;
  o.opsm_delta = "auto:0.95";
  return with_kl(o, "unbiased", 0.001);
}

PolicyOptions dapo() {
  PolicyOptions o = grpo("mean_std");
  o.clip_high = 0.28;
  o.aggregation = "token";
  o.mask_truncated = true;
  return o;
}

PolicyOptions dr_grpo() {
  PolicyOptions o = grpo("mean");
  o.aggregation = "constant";
  return o;
}

PolicyOptions corrected(PolicyOptions o, const char* importance, double cap) {
  o.old = "prox";
  o.importance = importance;
  o.tis_cap = cap;
  return o;
}

PolicyOptions olmo3() {
  PolicyOptions o = grpo("mean");
  o.clip_high = 0.272;
  o.aggregation = "token";
  return corrected(o, "tis", 2);
}

PolicyOptions r1() {
  PolicyOptions o = with_kl(grpo("mean_std"), "k3", 0.001);
  o.clip_low = o.clip_high = 10;
  return o;
}

PolicyOptions ppo() {
  PolicyOptions o = grpo("critic");
  o.aggregation = "token";
  return o;
}

PolicyOptions cispo() {
  PolicyOptions o = grpo("mean_std");
  o.surrogate = "cispo";
  o.clip_low = 1;
  o.clip_high = 4;
  o.aggregation = "token";
  return o;
}

PolicyOptions gspo() {
  PolicyOptions o = grpo("mean_std");
  o.ratio = "sequence";
  o.clip_low = 3e-4;
  o.clip_high = 4e-4;
  return o;
}

PolicyOptions rloo() {
  PolicyOptions o = grpo("leave_one_out");
  o.surrogate = "ratio";
  return o;
}

PolicyOptions distillation() {
  PolicyOptions o = with_kl(PolicyOptions{}, "unbiased", 1);
  o.advantage = "none";
  o.surrogate = "off";
  o.aggregation = "token";
  return o;
}

struct Preset {
  const char* name;
  PolicyOptions options;
};

std::vector<Preset> presets() {
  return {{"v32", v32("mean")},
          {"v32_seed", v32("mean_std")},
          {"ppo_rlhf", ppo()},
          {"grpo_deepseekmath", with_kl(grpo("mean_std"), "k3", 0.04)},
          {"r1_zero", with_kl(grpo("mean_std"), "k3", 0.001)},
          {"r1", r1()},
          {"dapo", dapo()},
          {"dr_grpo", dr_grpo()},
          {"olmo3", olmo3()},
          {"decoupled", corrected(grpo("mean_std"), "tis", 0)},
          {"tis", corrected(grpo("mean_std"), "tis", 2)},
          {"icepop", corrected(grpo("mean_std"), "icepop", 0)},
          {"cispo", cispo()},
          {"gspo", gspo()},
          {"rloo", rloo()},
          {"opd", distillation()}};
}

void expect_word(const char* name, const std::string& found,
                 std::initializer_list<const char*> words) {
  if (std::find(words.begin(), words.end(), found) != words.end()) return;
  throw Error(Code::kInvalidArgument,
              fmt::format("{}: expected {}, found \"{}\"", name, fmt::join(words, ", "), found));
}

void expect_at_least_0(const char* name, double value) {
  if (value >= 0) return;
  throw Error(Code::kInvalidArgument,
              fmt::format("{}: expected a number >= 0, found {}", name, value));
}

// "DOMAIN=BETA"
std::pair<std::string, double> domain_beta(const std::string& text) {
  const size_t equals = text.rfind('=');
  double beta = -1;
  if (equals != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [p, ec] = std::from_chars(text.data() + equals + 1, end, beta);
    if (ec != std::errc() || p != end) beta = -1;
  }
  if (!(beta >= 0))
    throw Error(Code::kInvalidArgument,
                fmt::format("kl_domains: expected DOMAIN=BETA, found \"{}\"", text));
  return {text.substr(0, equals), beta};
}

}  // namespace

void PolicyOptions::fields(OptionSet& o) {
  o.add("advantage", &advantage,
        "mean, mean_std, mean_sample_std, leave_one_out, none: the reward itself, or critic");
  o.add("advantage_epsilon", &advantage_epsilon, "added to the standard deviation");
  o.add("old", &old,
        "denominator of the ratio: behaviour, prox (the trainer's own) or current (ratio 1)");
  o.add("ratio", &ratio, "token, sequence (geometric mean) or output (product)");
  o.add("surrogate", &surrogate, "clip, cispo, ratio or off");
  o.add("clip_low", &clip_low, "the ratio is clipped below 1 - clip_low");
  o.add("clip_high", &clip_high, "and above 1 + clip_high");
  o.add("dual_clip", &dual_clip, "largest ratio of a negative advantage; 0: off");
  o.add("importance", &importance, "detached weight of prox / behaviour: none, tis or icepop");
  o.add("tis_cap", &tis_cap, "the weight is cut off here; 0: nowhere");
  o.add("icepop_low", &icepop_low, "tokens with a weight below are dropped");
  o.add("icepop_high", &icepop_high, "and above");
  o.add("opsm_delta", &opsm_delta, "off-policy sequence mask: off, a number, or auto:QUANTILE");
  o.add("opsm_floor", &opsm_floor, "least delta of auto");
  o.add("geometric_low", &geometric_low, "sequences with a mean ratio below are masked; 0: none");
  o.add("geometric_high", &geometric_high, "and above");
  o.add("mask_kl", &mask_kl, "masked sequences lose their KL term too");
  o.add("mask_truncated", &mask_truncated, "answers cut at the limit do not count");
  o.add("kl", &kl, "to the reference: none, k1, k2, k3 or unbiased");
  o.add("kl_beta", &kl_beta, "weight of the KL");
  o.add("kl_domains", &kl_domains, "DOMAIN=BETA, where it differs");
  o.add("aggregation", &aggregation, "mean per sequence, per token, or sums by a constant");
  o.add("aggregation_length", &aggregation_length, "the constant; 0: the longest answer");
  o.add("keep_routing", &keep_routing, "train with the experts of the rollout");
  o.add("keep_sampling_mask", &keep_sampling_mask, "train inside the support of the rollout");
  o.add("indexer_kl_weight", &indexer_kl_weight, "of the indexer's KL to the attention; 0: frozen");
}

void check_policy_options(const PolicyOptions& o) {
  expect_word("advantage", o.advantage,
              {"mean", "mean_std", "mean_sample_std", "leave_one_out", "none", "critic"});
  expect_word("old", o.old, {"behaviour", "prox", "current"});
  expect_word("ratio", o.ratio, {"token", "sequence", "output"});
  expect_word("surrogate", o.surrogate, {"clip", "cispo", "ratio", "off"});
  expect_word("importance", o.importance, {"none", "tis", "icepop"});
  expect_word("kl", o.kl, {"none", "k1", "k2", "k3", "unbiased"});
  expect_word("aggregation", o.aggregation, {"sequence", "token", "constant"});
  for (const auto& [name, value] :
       {std::pair("advantage_epsilon", o.advantage_epsilon),
        {"clip_low", o.clip_low},
        {"clip_high", o.clip_high},
        {"dual_clip", o.dual_clip},
        {"tis_cap", o.tis_cap},
        {"icepop_low", o.icepop_low},
        {"icepop_high", o.icepop_high},
        {"opsm_floor", o.opsm_floor},
        {"geometric_low", o.geometric_low},
        {"geometric_high", o.geometric_high},
        {"kl_beta", o.kl_beta},
        {"indexer_kl_weight", o.indexer_kl_weight},
        {"aggregation_length", static_cast<double>(o.aggregation_length)}})
    expect_at_least_0(name, value);
  for (const std::string& d : o.kl_domains) domain_beta(d);
}

double kl_beta_of(const PolicyOptions& o, const std::string& domain) {
  for (const std::string& text : o.kl_domains) {
    const auto [name, beta] = domain_beta(text);
    if (name == domain) return beta;
  }
  return o.kl_beta;
}

std::vector<std::string> policy_preset_names() {
  std::vector<std::string> names;
  for (const Preset& p : presets()) names.emplace_back(p.name);
  return names;
}

PolicyOptions policy_preset(const std::string& name) {
  for (const Preset& p : presets())
    if (name == p.name) return p.options;
  throw Error(Code::kInvalidArgument, fmt::format("preset: expected one of {}, found \"{}\"",
                                                  fmt::join(policy_preset_names(), ", "), name));
}

}  // namespace fathom
