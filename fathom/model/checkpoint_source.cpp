#include "fathom/model/checkpoint_source.h"

#include <fmt/format.h>

#include <map>

#include "fathom/model/checkpoint_folder.h"

namespace fathom {
namespace {

constexpr int64_t kScaleBlock = 128;  // what kernels take

class FolderSource final : public WeightSource {
 public:
  FolderSource(Arena& arena, const CheckpointFolder& folder) : arena_(arena), folder_(folder) {
    for (TensorSpec& spec : tensor_specs(folder.config())) specs_.emplace(spec.name, spec);
  }

  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor* scale) override {
    const auto spec = specs_.find(name);
    FM_CHECK(spec != specs_.end(), "{} is no tensor of this model", name);
    FM_CHECK(spec->second.shape == shape, "{}: another shape than the specification's", name);
    const StoredWeight w = folder_.weight(spec->second);
    if (!w.scale) return w.tensor;
    if (w.block_rows == kScaleBlock && w.block_cols == kScaleBlock) {
      *scale = w.scale;
      return w.tensor;
    }
    Tensor out = empty(arena_, DType::kF32, {shape[0], shape[1]});  // unusual blocks: expanded
    dequantize(w, out);
    return out;
  }

 private:
  Arena& arena_;
  const CheckpointFolder& folder_;
  std::map<std::string, TensorSpec> specs_;
};

}  // namespace

Model load_model(const Ctx& ctx, const std::string& folder, WeightUse use) {
  const CheckpointFolder files(folder);
  Model model{files.config(), {}};
  FolderSource source(ctx.arena, files);
  model.weights = load_weights(ctx, model.config, source, use);
  return model;
}

Model random_model(const Ctx& ctx, const ModelConfig& config, uint64_t seed) {
  const std::unique_ptr<WeightSource> source = random_source(ctx.arena, config, seed);
  return {config, load_weights(ctx, config, *source, WeightUse::kTrain)};
}

void save_model(const std::string& folder, const Model& model) {
  std::vector<NamedTensor> tensors;
  for (const auto* list : {&model.weights.params, &model.weights.buffers})
    for (const Param& p : *list)
      tensors.push_back({p.name, Tensor(p.value.view(), p.value.node())});
  save_checkpoint_folder(folder, model.config, tensors);
}

}  // namespace fathom
