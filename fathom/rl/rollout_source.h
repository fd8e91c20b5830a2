// The rollouts that each step learns from: tasks are asked, answers sampled and scored, groups
// without a signal replaced, and finished batches held back for as long as the lag says.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/rl/rl_options.h"
#include "fathom/rl/value_model.h"
#include "fathom/rl/weight_copy.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

// What a reward found beside its value: a part "right" of weight 0 is 1 or 0 where an answer could
// be verified. -1: it could not.
int answer_right(const Rollout& r);

struct RolloutBatch {
  std::vector<Rollout> rollouts;  // scored; whole groups, one after the other
  int64_t rounds = 1;             // of dynamic sampling
};

// Rewards of a group, with the part that answer_right reads.
void score_task(std::span<Rollout> group, const Task& task, const RlOptions& options,
                const Tokenizer& tokenizer, const RewardMix& rewards, const RewardTools& tools);
// The groups of a batch, in order.
std::vector<std::span<const Rollout>> groups_of(std::span<const Rollout> rollouts);
// Sampled to the end by the policy, and scored.
bool can_learn_from(const Rollout& r);
// Of the answers that can be learned from, some differ in their reward.
bool group_has_signal(std::span<const Rollout> group);

// One thread. Everything given must outlive it.
class RolloutSource {
 public:
  // `model` is the policy, changed in place by its owner. version: of its weights. Throws Error.
  RolloutSource(const Ctx& ctx, const Model& model, const Tokenizer& tokenizer,
                const RlOptions& options, int64_t version);

  // What step `step` learns from. Seconds of scoring are added to reward_s().
  RolloutBatch next(int64_t step);
  // The policy was changed and packed.
  void weights_changed(int64_t version);
  RolloutStats take_stats() { return runner_.take_stats(); }
  // For evaluations of the same policy.
  RewardTools tools() { return verifiers_.tools(); }
  double take_reward_s() { return std::exchange(reward_s_, 0); }

  // Files in the folder of a checkpoint; loading needs a source of that checkpoint's version.
  void save(const std::string& folder) const;
  void load(const std::string& folder);

 private:
  void ask(int64_t step, int64_t groups);
  void score(std::vector<Rollout>& group);
  void score_by_model(std::vector<Rollout>& group);
  RolloutBatch sample(int64_t step);

  Ctx ctx_;
  const Model& model_;
  const Tokenizer& tokenizer_;
  RlOptions options_;
  TaskSource tasks_;
  RewardMix rewards_;
  Verifiers verifiers_;
  std::optional<ValueModel> reward_model_;
  std::unique_ptr<Model> rounded_;  // with rollout_bits: what is sampled from
  RolloutRunner runner_;
  int64_t next_group_ = 0;
  std::deque<RolloutBatch> waiting_;  // of the lag; the oldest first
  double reward_s_ = 0;
};

// Where the policy attends: to what its indexer selects, if it has one.
KeySelection policy_selection(const ModelConfig& config);

}  // namespace fathom
