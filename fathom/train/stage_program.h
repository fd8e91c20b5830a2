// What a stage does between the parts that all stages share (recipe, optimiser, schedule, metrics,
// checkpoints): next-token training here, reinforcement learning in rl/.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "fathom/base/options.h"
#include "fathom/comm/comm.h"
#include "fathom/model/transformer.h"
#include "fathom/train/checkpoint.h"
#include "fathom/train/data/batcher.h"

namespace fathom {

class RunLog;
struct StageRecipe;
struct StepReport;

// What the steps of a stage work on; all of it outlives them.
struct StageContext {
  const Ctx& ctx;
  Model& model;
  Optimizer& optimizer;
  const StageRecipe& stage;
  const std::string& run;  // the folder
  RunLog& log;
  BatchTokens special;
  Comm& comm;
};

// A running stage.
class StageSteps {
 public:
  virtual ~StageSteps() = default;
  // One step, weights packed at its end. `before`: the run's state before it. Fills the report but
  // for state, seconds and memory. An exception ends the run after the last checkpoint.
  virtual void step(const TrainState& before, StepReport* report) = 0;
  // State that weights, moments and step numbers do not hold, as files of a checkpoint folder.
  virtual void save(const std::string& /*folder*/) const {}
  virtual void load(const std::string& /*checkpoint*/) {}
};

// A kind of stage as a recipe names it: its options, and its steps.
class StageProgram {
 public:
  virtual ~StageProgram() = default;
  // Before the recipe's keys are read: values that differ from those of next-token training.
  // Throws Error for an unknown preset.
  virtual void defaults(const std::string& preset, StageRecipe* stage) = 0;
  virtual void fields(OptionSet& o) = 0;
  // Throws Error for values out of range or that the model cannot follow.
  virtual void check(const ModelConfig& config) const = 0;
  // Do the ranks of a run share its work? Then each has its steps, all of them with the same
  // weights after every step; save() is called on the first rank alone. Otherwise that rank works
  // alone.
  virtual bool shares_work() const { return false; }
  // `state`: of the run, at the stage's beginning or where it goes on.
  virtual std::unique_ptr<StageSteps> begin(const StageContext& context,
                                            const TrainState& state) = 0;
};

struct StageKind {
  std::string_view name;
  std::shared_ptr<StageProgram> (*make)();
};

}  // namespace fathom
