#include "fathom/model/memory_plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

#include "fathom/model/tensor_names.h"

namespace fathom {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t packed_bytes(const Kernels& kernels, DType dtype, int64_t n, int64_t k, bool transposed) {
  const View outline = make_view(nullptr, dtype, {n, k});
  return block_bytes(kernels.packed_bytes({.raw = outline, .transposed = transposed}));
}

int64_t packed_bytes(const Kernels& kernels, const StoredWeight& w) {
  return block_bytes(kernels.packed_bytes({.raw = packed_outline(w)}));
}

// The products of MLA work on single heads: keys' rows transposed, values' rows as they are.
int64_t head_bytes(const Kernels& kernels, const ModelConfig& c, const StoredWeight& kv_b_proj,
                   Quant quant) {
  if (quant != Quant::kNone)  // keys' rows are turned before they are coded
    return c.num_attention_heads *
           (packed_bytes(kernels, DType::kI8, c.kv_lora_rank, c.qk_nope_head_dim, false) +
            packed_bytes(kernels, DType::kI8, c.v_head_dim, c.kv_lora_rank, false));
  const DType t = head_type(kv_b_proj);
  return c.num_attention_heads *
         (packed_bytes(kernels, t, c.qk_nope_head_dim, c.kv_lora_rank, true) +
          packed_bytes(kernels, t, c.v_head_dim, c.kv_lora_rank, false));
}

bool power_of_two(float x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == 0.5f && exponent > -100 && exponent < 100;
}

}  // namespace

int64_t block_bytes(int64_t size_bytes) {
  if (size_bytes < kHugePage / 2) return size_bytes;
  return (size_bytes + kHugePage - 1) / kHugePage * kHugePage;
}

DType head_type(const StoredWeight& w) {
  if (!w.scale) return w.tensor.view.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  const float* scale = w.scale.as<float>();
  return std::all_of(scale, scale + w.scale.view.numel(), power_of_two) ? DType::kBF16
                                                                        : DType::kF32;
}

std::vector<std::vector<StoredExpert>> collect_experts(const ModelConfig& c, WeightSource& source) {
  std::vector<std::vector<StoredExpert>> layers;
  const int64_t D = c.hidden_size, F = c.moe_intermediate_size;
  for (int64_t l = 0; l < c.num_layers(); ++l) {
    if (!c.is_moe_layer(l)) continue;
    std::vector<StoredExpert>& layer = layers.emplace_back();
    for (int64_t e = 0; e < c.n_routed_experts; ++e) {
      StoredExpert x{.name = fmt::format("model.layers.{}.mlp.experts.{}.", l, e)};
      x.gate_proj = source.stored(x.name + "gate_proj.weight", {F, D});
      x.up_proj = source.stored(x.name + "up_proj.weight", {F, D});
      x.down_proj = source.stored(x.name + "down_proj.weight", {D, F});
      layer.push_back(std::move(x));
    }
  }
  return layers;
}

MemoryPlan plan_memory(const Kernels& kernels, const ModelConfig& config, WeightSource& source,
                       const std::vector<std::vector<StoredExpert>>& experts,
                       const LoadOptions& options) {
  MemoryPlan plan{.reserved_bytes = options.reserved_bytes};
  for (const TensorSpec& spec : tensor_specs(config)) {
    const bool matrix = spec.kind == TensorKind::kLinear || spec.kind == TensorKind::kGate ||
                        spec.kind == TensorKind::kHead;
    if (!matrix || spec.expert >= 0 || spec.optional) continue;
    const StoredWeight w = source.stored(spec.name, spec.shape);
    plan.resident_bytes += spec.name.ends_with("kv_b_proj.weight")
                               ? head_bytes(kernels, config, w, options.quant)
                               : packed_bytes(kernels, w);
  }
  if (config.tie_word_embeddings) {
    const std::vector<int64_t> shape = {config.vocab_size, config.hidden_size};
    const StoredWeight w = source.stored("model.embed_tokens.weight", shape);
    plan.resident_bytes += packed_bytes(kernels, w);
  }
  for (const auto& layer : experts) plan.num_experts += std::ssize(layer);
  plan.slot_bytes = block_bytes(expert_slot_bytes(kernels, experts));
  plan.num_slots = plan.num_experts;
  if (options.memory_bytes <= 0 || plan.full_bytes() <= options.memory_bytes) return plan;
  if (plan.slot_bytes > 0)
    plan.staging_bytes = options.num_loaders * block_bytes(expert_staging_bytes(experts));
  const int64_t left =
      options.memory_bytes - plan.resident_bytes - plan.reserved_bytes - plan.staging_bytes;
  plan.num_slots = plan.slot_bytes > 0 ? std::min(left / plan.slot_bytes, plan.num_experts) : 0;
  if (left < plan.slot_bytes || plan.slot_bytes == 0)
    throw Error(
        Code::kExhausted,
        fmt::format("memory: expected at least {}, found {}: {} of weights that every token uses, "
                    "{} of key cache and activations, {} to fetch an expert, {} for each expert",
                    bytes_text(plan.least_bytes()), bytes_text(options.memory_bytes),
                    bytes_text(plan.resident_bytes), bytes_text(plan.reserved_bytes),
                    bytes_text(plan.staging_bytes), bytes_text(plan.slot_bytes)),
        "give it more memory or a shorter context");
  return plan;
}

int64_t activation_bytes(const ModelConfig& c, int64_t num_rows, int64_t num_sampled) {
  const int64_t H = c.num_attention_heads, A = std::max<int64_t>(c.num_experts_per_tok, 1);
  // Queries in both forms, latent results, heads' outputs.
  const int64_t attention =
      H * (2 * c.qk_head_dim() + 2 * c.kv_lora_rank + c.qk_rope_head_dim + c.v_head_dim) +
      2 * c.q_lora_rank;
  const int64_t indexer = c.has_dsa() ? 3 * c.index_n_heads * c.index_head_dim + c.index_topk : 0;
  const int64_t experts =
      A * (c.hidden_size + 3 * c.moe_intermediate_size) + 3 * c.shared_intermediate_size();
  const int64_t widest = std::max({attention + indexer, experts, 3 * c.intermediate_size});
  return 4 * (num_rows * (8 * c.hidden_size + widest) + 2 * num_sampled * c.vocab_size);
}

std::string bytes_text(int64_t size_bytes) {
  const auto bytes = static_cast<double>(size_bytes);
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{} bytes", size_bytes);
}

int64_t parse_bytes(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "K" || unit == "kB") factor = 1e3;
  if (unit == "M" || unit == "MB") factor = 1e6;
  if (unit == "G" || unit == "GB") factor = 1e9;
  if (unit == "KiB") factor = 0x1p10;
  if (unit == "MiB") factor = 0x1p20;
  if (unit == "GiB") factor = 0x1p30;
  const double bytes = number * factor;
  if (error != std::errc() || factor == 0 || !(bytes >= 1 && bytes < 1e18))
    throw Error(
        Code::kInvalidArgument,
        fmt::format("expected an amount of memory like 8G, 512M or 1.5GiB, found \"{}\"", text));
  return static_cast<int64_t>(bytes);
}

}  // namespace fathom
