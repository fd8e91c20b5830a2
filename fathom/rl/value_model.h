// A transformer with one number per token in place of the language-model head: critics and reward
// models. The head's tensor is one more parameter of the model, so that optimiser, packing,
// checkpoints and saving treat it as any other. (docs/formats.md)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fathom/model/transformer.h"
#include "fathom/rl/rl_objective.h"

namespace fathom {

struct ValueModel {
  Model model;
  Weight head;  // [1,D], also the last of model.weights.params
};

inline constexpr const char* kScoreName = "score.weight";           // of reward models
inline constexpr const char* kValueHeadName = "value_head.weight";  // of critics

// A model for training gets a head of zeros; what does not reach it (lm_head, prediction layers,
// indexers) takes no gradients. `model` is handed over: nobody else may train it.
ValueModel with_value_head(const Ctx& ctx, Model model, const std::string& name);
// A checkpoint folder with one of the two tensors, [1,D] or [D], for training. save_model writes
// one. Throws Error when there is none, or it has another size.
ValueModel load_value_model(const Ctx& ctx, const std::string& folder);

// ---- critic ------------------------------------------------------------------------------------

struct ValueOptions {
  double value_clip = 0.2;  // of the change since the values of the rollout; 0: off
  double value_weight = 1;
  KeySelection selection = KeySelection::kSparse;
  int64_t rows_per_pass = 4096;

  void fields(OptionSet& o) {
    o.add("value_clip", &value_clip, "largest change of a value that is rewarded; 0: any");
    o.add("value_weight", &value_weight, "of the critic's loss");
  }
};

// Per rollout [R]: the value before each sampled token; 0 where injected. No gradients.
std::vector<std::vector<double>> rollout_values(Ctx& ctx, const ValueModel& critic,
                                                std::span<const Rollout* const> rollouts,
                                                const ValueOptions& options);

struct ValueSample {
  const Rollout* rollout = nullptr;
  std::vector<double> value_target, old_value;  // [R]
};

struct ValueReport {
  int64_t num_tok = 0;
  double loss = 0;         // mean over num_tok of the whole mini-batch, times value_weight
  double sum_squared = 0;  // of value - target, unclipped
  double sum_target = 0, sum_squared_target = 0;
  int64_t num_clipped = 0;            // where the clipped branch is the larger one
  double explained_variance() const;  // 1 - mean squared error / variance of the targets
  void add(const ValueReport& part);
  template <class F>
  void each(F&& f) {
    f(num_tok), f(loss), f(sum_squared), f(sum_target), f(sum_squared_target), f(num_clipped);
  }
};

// value_weight * 1/2 max((v - ret)^2, (clip(v, old +- value_clip) - ret)^2), mean over num_tok
// sampled tokens. With a tape gradients are added. Parts add up as in run_policy_objective.
ValueReport run_value_objective(Ctx& ctx, const ValueModel& critic,
                                std::span<const ValueSample> part, int64_t num_tok,
                                const ValueOptions& options);

// ---- reward model ------------------------------------------------------------------------------

// Texts (prompt and answer) of which the first is preferred. Scores are read at the last token.
struct PreferencePair {
  std::vector<int32_t> chosen, rejected;
};

// Score of each text. No gradients.
std::vector<double> reward_scores(Ctx& ctx, const ValueModel& reward_model,
                                  std::span<const std::vector<int32_t>> texts,
                                  const ValueOptions& options = {});

struct PreferenceReport {
  int64_t num_pairs = 0, num_right = 0;  // right: the chosen one scores higher
  double loss = 0, sum_margin = 0;
  double accuracy() const;
  void add(const PreferenceReport& part);
};

// Bradley-Terry: mean over num_pairs of -log sigmoid(score(chosen) - score(rejected)).
PreferenceReport run_preference_objective(Ctx& ctx, const ValueModel& reward_model,
                                          std::span<const PreferencePair> part, int64_t num_pairs,
                                          const ValueOptions& options = {});

}  // namespace fathom
