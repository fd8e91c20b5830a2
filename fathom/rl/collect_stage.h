// A stage that changes no weights (kind = "collect"): the model answers tasks, and the answers that
// are good enough become token shards for a later stage. Rejection sampling, distillation.
#pragma once

#include <memory>
#include <string>

#include "fathom/rl/rollout_runner.h"
#include "fathom/rl/sft_records.h"
#include "fathom/rl/verifiers.h"
#include "fathom/task/synth/task_source.h"
#include "fathom/train/stage_program.h"

namespace fathom {

struct CollectOptions {
  TaskOptions tasks;
  RolloutOptions rollout;
  RewardOptions reward;
  VerifierOptions verifiers;
  KeepOptions keep;
  int64_t seed = 1, prompts = 32;
  std::string output;
  bool learn_mode = false;

  void fields(OptionSet& o);
};

// The stage's kind, for read_recipe. The last step writes OUTPUT.jsonl and the shards OUTPUT, where
// output is {run}/shards/NAME unless it is given. Throws Error when nothing is kept.
std::shared_ptr<StageProgram> make_collect_program();

}  // namespace fathom
