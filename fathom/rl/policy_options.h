// Every policy objective as options of one loss. docs/rl.md maps the equations of the papers to
// these options and says where each preset's numbers come from.
#pragma once

#include <string>
#include <vector>

#include "fathom/base/options.h"

namespace fathom {

// pi: the current policy, mu: the behaviour that sampled, prox: the trainer's own log-probs of the
// weights that sampled (optional), ref: the reference. A: the advantage of the token.
struct PolicyOptions {
  // advantage, inside a group
  // mean, mean_std (population), mean_sample_std, leave_one_out, none (the reward itself), or
  // critic (each token's own, which the caller gives)
  std::string advantage = "mean";
  double advantage_epsilon = 1e-6;  // added to the standard deviation

  // r = pi / old
  // behaviour, prox (decoupled PPO), or current: the policy itself, as of trainers that compute
  // "old" just before the step; r is 1 and staleness is invisible to the surrogate
  std::string old = "behaviour";
  std::string ratio = "token";     // token, sequence (GSPO: geometric mean) or output (product)
  std::string surrogate = "clip";  // clip, cispo, ratio (r A) or off
  double clip_low = 0.2, clip_high = 0.2;
  double dual_clip = 0;  // c: at least c A where A < 0; 0: off

  // detached factor of the surrogate, a function of prox / mu
  std::string importance = "none";  // none, tis or icepop
  double tis_cap = 2;               // 0: no cap
  double icepop_low = 0.5, icepop_high = 5;

  // whole sequences leave the surrogate (not the KL, not the denominators)
  std::string opsm_delta = "off";  // off, a number, or auto:q (quantile q of the divergences)
  double opsm_floor = 0.02;        // of an automatic delta
  double geometric_low = 0, geometric_high = 0;  // kept band of exp(mean log(pi / mu)); 0: off
  bool mask_kl = false;                          // masks take the KL term out too
  bool mask_truncated = false;  // answers cut at the limit leave loss and denominators (DAPO)

  std::string kl = "none";  // none, k1, k2, k3 or unbiased: to ref
  double kl_beta = 0;
  std::vector<std::string> kl_domains;  // "math=0": beta of a domain

  std::string aggregation = "sequence";  // mean of means; token: of all tokens; constant: sums
  int64_t aggregation_length = 0;  // of constant: each sum is divided by it; 0: longest answer

  bool keep_routing = true;
  bool keep_sampling_mask = true;
  double indexer_kl_weight = 0;  // 0: the indexer is frozen

  void fields(OptionSet& o);
};

// "v32", "grpo" ...: see docs/rl.md. Throws Error that lists the names.
PolicyOptions policy_preset(const std::string& name);
std::vector<std::string> policy_preset_names();
// Throws Error for an unknown word or a number out of range.
void check_policy_options(const PolicyOptions& o);

double kl_beta_of(const PolicyOptions& o, const std::string& domain);

}  // namespace fathom
