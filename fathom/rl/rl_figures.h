// What one step of reinforcement learning shows: curves for the run's record, a line for the
// terminal, and alarms with their causes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "fathom/rl/rl_update.h"
#include "fathom/rl/rollout_source.h"
#include "fathom/train/metrics.h"

namespace fathom {

struct RlStepFigures {
  const RolloutBatch* batch = nullptr;
  int64_t version = 0;  // of the weights before the step
  const PreparedStep* prepared = nullptr;
  PolicyReport policy;  // of all mini-batches
  ValueReport critic;   // likewise, where there is one
  RolloutStats rollout;
  double rollout_s = 0, reward_s = 0, update_s = 0;
};

// Names: docs/rl_runs.md. Times begin with "time/" or "speed/"; all else is a function of the seed.
std::vector<Metric> rl_metrics(const RlStepFigures& f, const RlOptions& options);
// "eval/accuracy" and others; the first score is over all tasks.
std::vector<Metric> eval_metrics(std::span<const TaskScore> scores);
// "reward 0.53 right 0.61 len 48 ent 0.31 mismatch 0 | rollout 61% (3120 tok/s) reward 0% ..."
std::string rl_detail(const RlStepFigures& f);

// Remembers what is usual.
class RlAlarms {
 public:
  // rewarded: the objective learns from rewards, so that groups must differ in them.
  RlAlarms(const LoopOptions& options, bool rewarded) : options_(options), rewarded_(rewarded) {}
  // Before the first update of a step: what the rollouts show.
  std::vector<std::string> of_rollouts(const RlStepFigures& f) const;
  // After the forward passes of a mini-batch, before its update.
  std::vector<std::string> of_update(double entropy, double grad_norm);

  struct State {
    double entropy = -1;             // of the last mini-batch; negative: none yet
    std::vector<double> grad_norms;  // the latest, the oldest first
  };
  const State& state() const { return state_; }
  void restore(State state) { state_ = std::move(state); }

 private:
  LoopOptions options_;
  bool rewarded_;
  State state_;
};

}  // namespace fathom
