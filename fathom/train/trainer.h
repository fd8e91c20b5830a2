// Runs the stages of a recipe: steps, metrics, checkpoints. The same code for every stage; a stage
// is its options and, where it is not next-token training, a program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/comm/comm.h"
#include "fathom/train/checkpoint.h"
#include "fathom/train/recipe.h"
#include "fathom/train/run_log.h"

namespace fathom {

struct StepReport {
  const StageRecipe* stage = nullptr;
  TrainState state;  // after the step
  LossReport loss;
  double grad_norm = 0, learning_rate = 0, seconds = 0;
  int64_t rows = 0;  // of the batch
  double tokens_per_s = 0;
  double max_load = 0;              // largest expert's share of its layer's mean load
  int64_t tokens = 0;               // with a loss
  std::vector<Metric> metrics;      // of a program, besides the above
  std::string detail;               // for a progress line; empty: the loss
  std::vector<std::string> alarms;  // what somebody should look at
  ArenaStats memory;
};

// Called on the training thread. An exception from it ends the run after the last checkpoint, as
// any other does.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void on_stage_begin(const StageRecipe&, const TrainState&) {}
  virtual void on_step(const StepReport&) {}
  // The stage's last step is done and its checkpoint written.
  virtual void on_stage_end(const StageRecipe&, const TrainState&, const Model&) {}
};

class Trainer {
 public:
  // A new run, or with `resume` the continuation of the one in the folder; `notes` takes remarks
  // about damaged checkpoints. special: ids that the batcher writes. comm: the ranks that share the
  // work, all of which see the same files; null: one. The weights after every step do not depend on
  // their number. The first rank alone writes. Throws Error.
  Trainer(const Ctx& ctx, Recipe recipe, std::string run, bool resume, BatchTokens special,
          std::vector<std::string>* notes, Comm* comm = nullptr);
  ~Trainer();

  // Trains until all stages are done, or until the observer throws. The observer of a rank that is
  // not the first must not write to the run.
  void run(TrainObserver& observer);
  const Model& model() const { return model_; }
  const TrainState& state() const { return state_; }
  RunLog& log() { return *log_; }

 private:
  void find_checkpoint(bool resume, std::vector<std::string>* notes);
  std::unique_ptr<RunLog> open_log(bool resume) const;
  void run_stage(const StageRecipe& stage, TrainObserver& observer);
  void follow_stage(const StageRecipe& stage);
  void share_weights();
  StepReport step(const StageRecipe& stage, StageSteps& steps);
  void write_metrics(const StepReport& r);

  Ctx ctx_;
  std::unique_ptr<Comm> alone_;
  Comm& comm_;
  Recipe recipe_;
  std::string run_;
  BatchTokens special_;
  Model model_;
  TrainState state_;
  std::string
      resumed_from_;  // checkpoint whose optimiser the first stage of this process takes over
  std::unique_ptr<RunLog> log_;
};

// Sets which parameters take gradients: "all", "main" (not the indexer), "indexer", "policy"
// (neither the indexer nor prediction layers) or "policy_indexer".
void set_trainable(const Model& model, const std::string& trains);
// What adjoints multiply with: "auto", split products where kernels and type have them, or "f32".
// Throws Error for another word.
GradProducts choose_gradient_products(const Ctx& ctx, const std::string& option);
// Throws Error when loss or gradient norm of the step after `before` is not finite.
void check_finite(const TrainState& before, const StageRecipe& stage, const StepReport& r);

}  // namespace fathom
