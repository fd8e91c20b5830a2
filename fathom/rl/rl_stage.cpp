#include "fathom/rl/rl_stage.h"

#include <fmt/core.h>

#include "fathom/rl/collect_stage.h"
#include "fathom/rl/reward_model_stage.h"
#include "fathom/train/recipe.h"

namespace fathom {
namespace {

class RlProgram final : public StageProgram {
 public:
  void defaults(const std::string& preset, StageRecipe* stage) override {
    if (!preset.empty()) options_.policy = policy_preset(preset);
    stage->stage.preset = preset;
    stage->stage.trains = "policy";
    stage->optimizer.weight_decay = 0;
    stage->schedule = {
        .learning_rate = 1e-5, .min_learning_rate = 1e-5, .warmup_steps = 0, .constant_share = 1};
  }
  void fields(OptionSet& o) override { options_.fields(o); }
  void check(const ModelConfig& config) const override {
    check_rl_options(options_);
    if (options_.policy.indexer_kl_weight > 0 && !config.has_dsa())
      throw Error(Code::kInvalidArgument,
                  "indexer_kl_weight: the model has no indexer (index_topk)");
  }
  bool shares_work() const override { return true; }
  std::unique_ptr<StageSteps> begin(const StageContext& context, const TrainState& state) override {
    return begin_rl(options_, context, state);
  }

 private:
  RlOptions options_;
};

constexpr StageKind kKinds[] = {
    {"collect", make_collect_program},
    {"rl", []() -> std::shared_ptr<StageProgram> { return std::make_shared<RlProgram>(); }},
    {"reward_model", make_reward_model_program}};

}  // namespace

std::span<const StageKind> rl_stage_kinds() { return kKinds; }

}  // namespace fathom
