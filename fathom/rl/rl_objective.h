// The policy objective of reinforcement learning on recorded rollouts: one forward pass of the form
// that sampled them, with their experts and supports, then one scalar per token back through it.
#pragma once

#include <span>
#include <vector>

#include "fathom/model/transformer.h"
#include "fathom/rl/policy_loss.h"
#include "fathom/task/rollout.h"

namespace fathom {

// A rollout with what the trainer knows about it. Per-token lists have response_len() entries.
struct PolicySample {
  const Rollout* rollout = nullptr;
  double advantage = 0;
  std::vector<double> token_advantage;  // instead of `advantage`, if given
  std::vector<double> ref_logp;         // empty: no reference
  std::vector<double> prox_logp;        // empty: none
  std::vector<double> old_logp;         // empty: the record's behaviour_logp
};

// How log-probs of recorded tokens are computed again.
struct ReplayOptions {
  bool keep_routing = true;                        // the record's experts; without: the model's own
  bool keep_sampling_mask = true;                  // log-probs inside the record's support
  bool measure = false;                            // entropy and kept mass: a pass over all logits
  KeySelection selection = KeySelection::kSparse;  // as in EngineOptions
  int64_t rows_per_pass = 4096;  // rollouts are packed up to this many rows, at least one
};

// Sums over rows of a replay.
struct ReplayFigures {
  double entropy = 0, kept_mass = 0;  // sums over sampled tokens, with `measure`
  int64_t num_singleton = 0;          // tokens whose support is one token
  // Decisions of the model's own routers (row, layer), given the experts of the layers below as
  // they were used, and how many equal the record's as sets.
  int64_t routing_equal = 0, routing_total = 0;
  int64_t selection_equal = 0, selection_total = 0;  // the same of the indexers' keys
  double max_mismatch = 0;                           // largest |logp - behaviour_logp|
  double sum_mismatch_k3 =
      0;                // of the behaviour to these log-probs: e^x - x - 1, x their difference
  int64_t num_tok = 0;  // sampled ones

  void add(const ReplayFigures& part);
  double mean_entropy() const;
  double mean_kept_mass() const;
  double singleton_share() const;
  double mismatch_kl() const;
  double routing_agreement() const;    // 1 where there is nothing to compare
  double selection_agreement() const;  // likewise
  template <class F>
  void each(F&& f) {
    f(entropy), f(kept_mass), f(num_singleton), f(routing_equal), f(routing_total);
    f(selection_equal), f(selection_total), f(max_mismatch), f(sum_mismatch_k3), f(num_tok);
  }
};

struct Replay {
  std::vector<std::vector<double>> logp;  // per rollout [R]; 0 where injected
  ReplayFigures figures;
};
// Forward only. Equal to the record's behaviour_logp bit for bit where the weights are those that
// sampled (f32). Reference models: keep_routing false. Throws Error for a record that does not fit
// the model: experts missing, out of range or twice, a sampled token outside its support.
Replay replay_logp(Ctx& ctx, const Model& model, std::span<const Rollout* const> rollouts,
                   const ReplayOptions& options);

struct PolicyReport {
  int64_t num_seq = 0, num_tok = 0;  // that count
  double objective = 0;              // J; the loss is -J
  double sum_ratio = 0, max_ratio = 1, min_ratio = 1;
  double sum_ref_kl = 0;  // k3 of pi to ref
  int64_t num_ref_tok = 0, num_clipped = 0, num_masked_seq = 0;
  double sum_divergence = 0;  // D over sequences
  double indexer_kl = 0;      // mean over rows, summed over layers
  ReplayFigures replay;
  std::vector<std::vector<double>> logp;  // per sample [R]; 0 where injected
  std::vector<SequenceTerms> terms;       // per sample, its sampled tokens

  double mean_ratio() const;
  double mean_ref_kl() const;
  double clip_share() const;    // of tokens
  double masked_share() const;  // of sequences
  double mean_divergence() const;
  double divergence_quantile(double q) const;  // of D; 0 without sequences
  void add(const PolicyReport& part);          // of another part of the same mini-batch
  template <class F>
  void each(F&& f) {
    f(num_seq), f(num_tok), f(objective), f(sum_ratio), f(max_ratio), f(min_ratio), f(sum_ref_kl);
    f(num_ref_tok), f(num_clipped), f(num_masked_seq), f(sum_divergence), f(indexer_kl), f(replay);
    f(logp), f(terms);
  }
};

// Denominators of a mini-batch. opsm_delta is left infinite: set it from resolve_opsm_delta.
PolicyCounts count_policy(std::span<const PolicySample> batch, const PolicyOptions& options);

// With a tape in ctx the gradients of the loss -J are added to the parameters that need one, pass
// by pass. `counts` are those of the whole mini-batch, of which `part` may be a part; gradients of
// parts add up to those of the whole up to rounding, and are the same bits for the same cuts.
// keep_routing and keep_sampling_mask are those of `options`, not of `replay`.
PolicyReport run_policy_objective(Ctx& ctx, const Model& policy, std::span<const PolicySample> part,
                                  const PolicyCounts& counts, const PolicyOptions& options,
                                  ReplayOptions replay = {});

}  // namespace fathom
