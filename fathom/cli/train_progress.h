// What a person sees of a training run: one progress line per stage, and a model folder at the end
// of each.
#pragma once

#include <memory>
#include <string>

#include "fathom/cli/progress.h"
#include "fathom/cli/runtime.h"
#include "fathom/text/tokenizer.h"
#include "fathom/train/trainer.h"

namespace fathom {

class ProgressObserver : public TrainObserver {
 public:
  // Models go to RUN/models/STAGE; `tokenizer` (a file, may be empty) is copied beside them.
  ProgressObserver(std::string run, std::string tokenizer)
      : run_(std::move(run)), tokenizer_(std::move(tokenizer)) {}
  void on_stage_begin(const StageRecipe& stage, const TrainState& state) override;
  void on_step(const StepReport& report) override;
  void on_stage_end(const StageRecipe& stage, const TrainState& state, const Model& model) override;
  std::string model_folder(const std::string& stage) const { return run_ + "/models/" + stage; }

 private:
  std::string run_, tokenizer_;
  std::unique_ptr<Progress> progress_;
  int64_t tokens_before_ = 0;
};

// Ids of the tokens that the batcher writes itself; -1 for those the tokenizer lacks.
BatchTokens batch_tokens(const Tokenizer& tokenizer);

}  // namespace fathom
