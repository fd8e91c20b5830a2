// Everything that a stage of reinforcement learning can be told, flat in a recipe: the tasks, the
// rollouts, the rewards, the objective, and the loop around them.
#pragma once

#include <string>
#include <vector>

#include "fathom/rl/critic.h"
#include "fathom/rl/policy_options.h"
#include "fathom/rl/rollout_runner.h"
#include "fathom/rl/task_eval.h"
#include "fathom/rl/verifiers.h"
#include "fathom/task/reward/reward.h"
#include "fathom/task/synth/task_source.h"

namespace fathom {

struct LoopOptions {
  int64_t seed = 1;
  int64_t prompts = 8;
  int64_t minibatches = 1, epochs = 1;
  int64_t extra_groups = 0;
  int64_t lag = 0;
  int64_t rollout_bits = 0;
  int64_t dynamic_rounds = 0;
  std::string reference;
  int64_t reference_every = 0;
  int64_t agreement_rollouts = -1;
  bool measure = true;
  int64_t eval_every = 20;
  std::vector<std::string> eval_tasks;
  double entropy_alarm = 0.002, gradient_alarm = 10;
  int64_t alarm_dumps = 3;

  void fields(OptionSet& o) {
    o.add("seed", &seed, "of tasks, sampling and mini-batches");
    o.add("prompts", &prompts, "groups that a step learns from");
    o.add("minibatches", &minibatches, "optimiser steps over the rollouts of a step");
    o.add("epochs", &epochs, "times that a step goes over its rollouts");
    o.add("extra_groups", &extra_groups,
          "groups on their way besides those of the step; they go on with the next weights");
    o.add("lag", &lag, "steps that finished rollouts wait before they are learned from");
    o.add("rollout_bits", &rollout_bits,
          "sample with matrices rounded to so many bits a row, 16: bf16; 0: with the trainer's");
    o.add("dynamic_rounds", &dynamic_rounds,
          "replace groups with equal rewards, in at most so many rounds of sampling; 0: keep them");
    o.add("reference", &reference,
          "folder of the reference, or of the teacher; empty: the policy of the stage's start");
    o.add("reference_every", &reference_every,
          "steps after which the policy becomes the reference; 0: never");
    o.add("agreement_rollouts", &agreement_rollouts,
          "rollouts of a step that are compared with the trainer's forward pass; -1: all");
    o.add("measure", &measure, "entropy and kept mass: a pass over all logits");
    o.add("eval_every", &eval_every, "steps between evaluations; 0: none");
    o.add("eval_tasks", &eval_tasks, "as problems, but for evaluation; empty: the same");
    o.add("entropy_alarm", &entropy_alarm, "alarm when the entropy of a token falls below");
    o.add("gradient_alarm", &gradient_alarm, "alarm at so many times the usual gradient norm");
    o.add("alarm_dumps", &alarm_dumps, "alarms of a run that keep the weights for replay");
  }
};

// Folders may begin with {run}, the run's folder.
struct RlOptions {
  TaskOptions tasks;
  RolloutOptions rollout;
  RewardOptions reward;
  VerifierOptions verifiers;
  std::string reward_model;  // folder; its score is one more addend of the reward
  double reward_model_weight = 1;
  PolicyOptions policy;
  CriticOptions critic;  // with advantage "critic"
  TaskEvalOptions eval;
  LoopOptions loop;

  void fields(OptionSet& o);  // all of them, flat
};
// The options with {run} in their folders replaced.
RlOptions with_folders(RlOptions options, const std::string& run);
// Whether some problem, also of the evaluation, is answered by a program.
bool has_programs(const RlOptions& o);
// Throws Error for values out of range.
void check_rl_options(const RlOptions& o);

}  // namespace fathom
