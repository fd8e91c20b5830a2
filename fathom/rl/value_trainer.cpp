#include "fathom/rl/value_trainer.h"

#include <fmt/core.h>

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/rl/weight_copy.h"
#include "fathom/tensor/safetensors.h"
#include "fathom/train/checkpoint.h"

namespace fathom {
namespace {

ValueModel first_model(const Ctx& ctx, const Model& policy, const std::string& folder,
                       const std::string& head_name) {
  ValueModel v = folder.empty() ? with_value_head(ctx, copy_weights(ctx, policy), head_name)
                                : load_value_model(ctx, folder);
  check_vocabulary(v.model, policy, folder);
  v.model.weights.pack(ctx, true);
  return v;
}

}  // namespace

ValueTrainer::ValueTrainer(const Ctx& ctx, const Model& policy, const std::string& folder,
                           const std::string& head_name, const OptimizerOptions& options)
    : ctx_(ctx),
      model_(first_model(ctx, policy, folder, head_name)),
      optimizer_(ctx, model_.model.weights.params, options) {}

double ValueTrainer::step(double learning_rate) {
  const double norm = optimizer_.grad_norm(ctx_);
  if (!std::isfinite(norm))
    throw Error(Code::kDataLoss,
                fmt::format("{}: the gradient norm is {}", model_.head.name(), norm),
                "lower its learning rate; the last checkpoint is intact");
  optimizer_.step(ctx_, learning_rate, norm);
  model_.model.weights.pack(ctx_, true);
  return norm;
}

void ValueTrainer::save(const std::string& folder) const {
  make_folders(folder);
  save_model(folder + "/model", model_.model);
  std::vector<NamedTensor> moments;
  for (const Param& p : optimizer_.state())
    moments.push_back({p.name, Tensor(p.value.view(), p.value.node())});
  write_safetensors(folder + "/optimizer.safetensors", moments);
  Json state = Json::object();
  state.set("optimizer_steps", Json::number(optimizer_.num_steps()));
  write_file_atomic(folder + "/state.json", state.dump(2) + "\n");
}

void ValueTrainer::load(const std::string& folder) {
  load_model_weights(folder + "/model", model_.model);
  load_optimizer(folder, &optimizer_);
  model_.model.weights.pack(ctx_, true);
}

}  // namespace fathom
