// A training recipe: the model's shape and the stages it goes through, read from TOML. Field names
// are the published ones; an unknown key is an error with a suggestion. Format: docs/formats.md.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/model/config.h"
#include "fathom/train/data/batcher.h"
#include "fathom/train/objective.h"
#include "fathom/train/optimizer.h"
#include "fathom/train/schedule.h"
#include "fathom/train/stage_program.h"

namespace fathom {

struct StageOptions {
  std::string name;  // "pretrain", "dsa_warmup", "dsa_sparse", "sft" or any other word
  std::string kind = "next_token";  // or a StageKind
  std::string preset;               // of the kind's options
  std::string from;                 // folder of the model to begin with; empty: the last stage's
  std::vector<std::string> data;    // shards or folders of them
  int64_t steps = 100;
  std::string trains = "all";              // see set_trainable
  std::string gradient_products = "auto";  // see choose_gradient_products
  double bias_update_speed = 0;            // gamma of auxiliary-loss-free balancing
  int64_t rows_per_pass =
      4096;  // a batch is cut into passes of about this many rows; bounds memory
  int64_t checkpoint_every = 0;  // steps; 0: only at the end of the stage
  int64_t keep_checkpoints = 2;

  void fields(OptionSet& o) {
    o.add("name", &name, "of the stage");
    o.add("kind", &kind, "next_token (on shards), collect (answers for shards) or rl");
    o.add("preset", &preset, "of kind rl: defaults of the objective");
    o.add("from", &from,
          "folder of a model that the stage begins with, {run}/models/NAME for that of another "
          "stage; empty: the last stage's");
    o.add("data", &data, "token shards, or folders of them; {run} stands for the run folder");
    o.add("steps", &steps, "optimiser steps");
    o.add("trains", &trains,
          "all, main (everything but the indexer), indexer, policy (neither indexer nor prediction "
          "layers) or policy_indexer");
    o.add("gradient_products", &gradient_products,
          "of the backward pass: auto (the fastest of this machine) or f32 (the same bits on every "
          "machine)");
    o.add("bias_update_speed", &bias_update_speed, "of the routing bias (V3: 0.001); 0: fixed");
    o.add("rows_per_pass", &rows_per_pass,
          "rows of one forward and backward pass; ranks take turns");
    o.add("checkpoint_every", &checkpoint_every,
          "steps between checkpoints; 0: at the stage's end only");
    o.add("keep_checkpoints", &keep_checkpoints, "newest ones that are kept");
  }
};

struct StageRecipe {
  StageOptions stage;
  BatchOptions batch;
  ObjectiveOptions objective;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  std::shared_ptr<StageProgram> program;  // of a kind that is not next_token

  // Flat: all of the above; with a program its options in place of batch and objective.
  void fields(OptionSet& o);
};

struct Recipe {
  ModelConfig config;
  int64_t seed = 1;  // of the initial weights
  std::string init;  // folder of a model to begin with instead
  std::vector<StageRecipe> stages;

  // Everything as (key, value), "STAGE.key" for the stages: what a run stores of its configuration.
  std::vector<std::pair<std::string, std::string>> values() const;
  int64_t total_steps() const;
};

// `path` with the run folder in place of {run}.
std::string path_in_run(std::string path, const std::string& run);

// Throws Error that names `what`, the line or the key. kinds: of stages that are not next_token.
Recipe parse_recipe(const std::string& toml, const std::string& what,
                    std::span<const StageKind> kinds = {});
Recipe read_recipe(const std::string& path, std::span<const StageKind> kinds = {});

}  // namespace fathom
