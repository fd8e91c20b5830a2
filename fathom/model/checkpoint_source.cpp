#include "fathom/model/checkpoint_source.h"

#include <fmt/core.h>

#include <map>

#include "fathom/model/checkpoint_folder.h"

namespace fathom {
namespace {

class FolderSource final : public WeightSource {
 public:
  FolderSource(Arena& arena, const CheckpointFolder& folder, bool drop_page_cache)
      : arena_(arena), folder_(folder), drop_page_cache_(drop_page_cache) {
    for (TensorSpec& spec : tensor_specs(folder.config())) specs_.emplace(spec.name, spec);
  }

  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor* scale) override {
    const StoredWeight w = stored(name, shape);
    if (!w.scale) return w.tensor;
    if (packs_as_stored(w) && !w.has_codes()) {
      *scale = w.scale;
      return w.tensor;
    }
    Tensor out =
        empty(arena_, DType::kF32, {shape[0], shape[1]});  // unusual blocks and codes: expanded
    dequantize(w, out);
    return out;
  }

  StoredWeight stored(const std::string& name, const std::vector<int64_t>& shape) override {
    const auto spec = specs_.find(name);
    FM_CHECK(spec != specs_.end(), "{} is no tensor of this model", name);
    FM_CHECK(spec->second.shape == shape, "{}: another shape than the specification's", name);
    return folder_.weight(spec->second);
  }

  void release_pages() override { folder_.release_pages(drop_page_cache_); }

 private:
  Arena& arena_;
  const CheckpointFolder& folder_;
  bool drop_page_cache_;
  std::map<std::string, TensorSpec> specs_;
};

std::string packed_path(const std::string& folder, Quant quant) {
  return fmt::format("{}/packed-{}.fmpack", folder, quant_name(quant));
}

// Another program or other kernels may want another form.
std::string packed_owner(const Ctx& ctx, const std::string& folder) {
  return fmt::format("program {} {}\n{}", file_stamp("/proc/self/exe"), ctx.kernels.name,
                     checkpoint_identity(folder));
}

}  // namespace

Model load_model(const Ctx& ctx, const std::string& folder, WeightUse use,
                 const LoadOptions& options) {
  const CheckpointFolder files(folder);
  Model model{files.config(), {}};
  FolderSource source(ctx.arena, files, options.drop_page_cache);
  LoadOptions o = options;
  const std::string packed = packed_path(folder, options.quant);
  if (use == WeightUse::kServe && options.memory_bytes == 0 && ctx.real == DType::kF32 &&
      file_exists(packed))
    o.packed = PackedWeights::open(ctx, packed, packed_owner(ctx, folder));
  model.weights = load_weights(ctx, model.config, source, use, o);
  return model;
}

void save_packed_weights(const Ctx& ctx, const std::string& folder, const Model& model,
                         const LoadOptions& options) {
  if (model.weights.packing.empty() || model.weights.expert_cache) return;
  write_packed_weights(packed_path(folder, options.quant), packed_owner(ctx, folder),
                       model.weights.packing);
}

std::string checkpoint_identity(const std::string& folder) {
  std::string text = read_file(folder + "/config.json");
  for (const std::string& name : list_folder(folder))
    if (name.find(".safetensors") != std::string::npos)
      text += fmt::format("\n{} {}", name, file_stamp(folder + "/" + name));
  return text;
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
