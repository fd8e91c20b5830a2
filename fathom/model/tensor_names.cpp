#include "fathom/model/tensor_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// Appends the tensors of one layer. `prefix_` ends in a dot.
class LayerList {
 public:
  LayerList(const ModelConfig& config, int64_t layer, std::vector<TensorSpec>& out)
      : c_(config), layer_(layer), out_(out), prefix_(fmt::format("model.layers.{}.", layer)) {}

  void block() {
    const int64_t d = c_.hidden_size;
    add("input_layernorm.weight", {d}, TensorKind::kNorm, TensorPart::kBlockNorm);
    attention();
    if (c_.has_indexer(layer_)) indexer();
    add("post_attention_layernorm.weight", {d}, TensorKind::kNorm, TensorPart::kBlockNorm);
    if (c_.is_moe_layer(layer_))
      experts();
    else
      mlp("mlp.", c_.intermediate_size, TensorPart::kDenseMlp, -1);
  }

  void mtp_inputs() {
    const int64_t d = c_.hidden_size;
    add("enorm.weight", {d}, TensorKind::kNorm, TensorPart::kMtp);
    add("hnorm.weight", {d}, TensorKind::kNorm, TensorPart::kMtp);
    add("eh_proj.weight", {d, 2 * d}, TensorKind::kLinear, TensorPart::kMtp);
  }

  void mtp_outputs() {
    const int64_t d = c_.hidden_size, v = c_.vocab_size;
    add("shared_head.norm.weight", {d}, TensorKind::kNorm, TensorPart::kMtp);
    add("embed_tokens.weight", {v, d}, TensorKind::kEmbedding, TensorPart::kMtp).optional = true;
    add("shared_head.head.weight", {v, d}, TensorKind::kHead, TensorPart::kMtp).optional = true;
  }

 private:
  TensorSpec& add(std::string_view name, std::vector<int64_t> shape, TensorKind kind,
                  TensorPart part) {
    out_.push_back(
        {prefix_ + std::string(name), std::move(shape), kind, part, layer_, -1, false, false});
    return out_.back();
  }
  TensorSpec& projection(std::string_view name, int64_t rows, int64_t cols, TensorPart part) {
    TensorSpec& spec = add(name, {rows, cols}, TensorKind::kLinear, part);
    spec.quantizable = true;
    return spec;
  }

  void attention() {
    const int64_t d = c_.hidden_size, heads = c_.num_attention_heads;
    const TensorPart part = TensorPart::kAttention;
    if (c_.q_lora_rank > 0) {
      projection("self_attn.q_a_proj.weight", c_.q_lora_rank, d, part);
      add("self_attn.q_a_layernorm.weight", {c_.q_lora_rank}, TensorKind::kNorm, part);
      projection("self_attn.q_b_proj.weight", heads * c_.qk_head_dim(), c_.q_lora_rank, part);
    } else {
      projection("self_attn.q_proj.weight", heads * c_.qk_head_dim(), d, part);
    }
    projection("self_attn.kv_a_proj_with_mqa.weight", c_.kv_lora_rank + c_.qk_rope_head_dim, d,
               part);
    add("self_attn.kv_a_layernorm.weight", {c_.kv_lora_rank}, TensorKind::kNorm, part);
    projection("self_attn.kv_b_proj.weight", heads * (c_.qk_nope_head_dim + c_.v_head_dim),
               c_.kv_lora_rank, part);
    projection("self_attn.o_proj.weight", d, heads * c_.v_head_dim, part);
  }

  void indexer() {
    const int64_t width = c_.index_head_dim;
    const TensorPart part = TensorPart::kIndexer;
    projection("self_attn.indexer.wq_b.weight", c_.index_n_heads * width, c_.q_lora_rank, part);
    projection("self_attn.indexer.wk.weight", width, c_.hidden_size, part);
    add("self_attn.indexer.k_norm.weight", {width}, TensorKind::kIndexerNorm, part);
    add("self_attn.indexer.k_norm.bias", {width}, TensorKind::kIndexerBias, part);
    add("self_attn.indexer.weights_proj.weight", {c_.index_n_heads, c_.hidden_size},
        TensorKind::kLinear, part);
  }

  void mlp(const std::string& name, int64_t inner, TensorPart part, int64_t expert) {
    const int64_t d = c_.hidden_size;
    projection(name + "gate_proj.weight", inner, d, part).expert = expert;
    projection(name + "up_proj.weight", inner, d, part).expert = expert;
    projection(name + "down_proj.weight", d, inner, part).expert = expert;
  }

  void experts() {
    add("mlp.gate.weight", {c_.n_routed_experts, c_.hidden_size}, TensorKind::kGate,
        TensorPart::kGate);
    if (c_.has_correction_bias())
      add("mlp.gate.e_score_correction_bias", {c_.n_routed_experts}, TensorKind::kCorrectionBias,
          TensorPart::kGate);
    for (int64_t e = 0; e < c_.n_routed_experts; ++e)
      mlp(fmt::format("mlp.experts.{}.", e), c_.moe_intermediate_size, TensorPart::kExpert, e);
    if (c_.n_shared_experts > 0)
      mlp("mlp.shared_experts.", c_.shared_intermediate_size(), TensorPart::kSharedExpert, -1);
  }

  const ModelConfig& c_;
  int64_t layer_;
  std::vector<TensorSpec>& out_;
  std::string prefix_;
};

TensorSpec outside(const char* name, std::vector<int64_t> shape, TensorKind kind) {
  TensorSpec spec;
  spec.name = name;
  spec.shape = std::move(shape);
  spec.kind = kind;
  return spec;
}

// Pairs of the demo's converter; the rest keeps its name.
constexpr std::pair<std::string_view, std::string_view> kModuleNames[] = {
    {"embed_tokens", "embed"},
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"q_proj", "wq"},
    {"q_a_proj", "wq_a"},
    {"q_a_layernorm", "q_norm"},
    {"q_b_proj", "wq_b"},
    {"kv_a_proj_with_mqa", "wkv_a"},
    {"kv_a_layernorm", "kv_norm"},
    {"kv_b_proj", "wkv_b"},
    {"o_proj", "wo"},
    {"gate_proj", "w1"},
    {"down_proj", "w2"},
    {"up_proj", "w3"},
    {"lm_head", "head"},
    {"self_attn", "attn"},
    {"mlp", "ffn"},
    {"weight_scale_inv", "scale"},
    {"e_score_correction_bias", "bias"},
};

std::vector<std::string_view> split_dots(std::string_view name) {
  std::vector<std::string_view> parts;
  for (size_t at = 0; at <= name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    parts.push_back(name.substr(at, dot - at));
    at = dot + 1;
  }
  return parts;
}

}  // namespace

int64_t TensorSpec::numel() const {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::vector<TensorSpec> tensor_specs(const ModelConfig& config) {
  const int64_t d = config.hidden_size, v = config.vocab_size;
  std::vector<TensorSpec> out;
  out.push_back(outside("model.embed_tokens.weight", {v, d}, TensorKind::kEmbedding));
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) LayerList(config, l, out).block();
  out.push_back(outside("model.norm.weight", {d}, TensorKind::kNorm));
  if (!config.tie_word_embeddings)
    out.push_back(outside("lm_head.weight", {v, d}, TensorKind::kHead));
  for (int64_t l = config.num_hidden_layers; l < config.num_layers(); ++l) {
    LayerList list(config, l, out);
    list.mtp_inputs();
    list.block();
    list.mtp_outputs();
  }
  return out;
}

std::string scale_name(std::string_view weight_name) {
  return std::string(weight_name) + "_scale_inv";
}

std::string code_scale_name(std::string_view weight_name) {
  return std::string(weight_name) + "_scale";
}

Quant quant_of(const TensorSpec& spec, Quant model) {
  if (model == Quant::kNone || spec.optional || spec.name.ends_with("kv_b_proj.weight"))
    return Quant::kNone;
  if (spec.kind == TensorKind::kHead) return Quant::kQ8;
  if (spec.kind != TensorKind::kLinear || !spec.quantizable) return Quant::kNone;
  return spec.part == TensorPart::kIndexer ? Quant::kQ8 : quant_for_inputs(model, spec.shape[1]);
}

std::string demo_name(std::string_view published) {
  if (published.starts_with("model."))
    published.remove_prefix(6);
  else if (published != "lm_head.weight")
    return "";
  std::string out;
  for (std::string_view part : split_dots(published)) {
    for (const auto& [from, to] : kModuleNames) {
      if (part != from) continue;
      part = to;
      break;
    }
    if (!out.empty()) out += '.';
    out += part;
  }
  return out;
}

std::string published_name(std::string_view demo) {
  if (demo == "head.weight") return "lm_head.weight";
  if (demo == "lm_head.weight" || demo.starts_with("model.")) return "";
  const std::vector<std::string_view> parts = split_dots(demo);
  const bool indexer = std::find(parts.begin(), parts.end(), "indexer") != parts.end();
  std::string out = "model";
  for (size_t i = 0; i < parts.size(); ++i) {
    std::string_view part = parts[i];
    // The indexer's wq_b and the bias of its norm are called that on both sides.
    const bool keeps = (indexer && part != "attn" && part != "scale") ||
                       (part == "bias" && (i == 0 || parts[i - 1] != "gate")) ||
                       (part == "head" && i > 0 && parts[i - 1] == "shared_head");
    for (const auto& [from, to] : kModuleNames) {
      if (keeps || part != to) continue;
      part = from;
      break;
    }
    out += '.';
    out += part;
  }
  return out;
}

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts n;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const int64_t size = spec.numel();
    if (spec.layer >= config.num_hidden_layers) {
      (spec.optional ? n.mtp_copies : n.mtp) += size;
      continue;
    }
    n.total += size;
    const bool used = spec.expert < config.num_experts_per_tok;  // -1: not a routed expert
    if (used && spec.kind != TensorKind::kCorrectionBias) n.active += size;
    if (spec.part == TensorPart::kIndexer) n.indexer += size;
  }
  return n;
}

LayerCounts count_layer(const ModelConfig& config, int64_t layer) {
  LayerCounts n;
  std::vector<TensorSpec> specs;
  LayerList(config, layer, specs).block();
  for (const TensorSpec& spec : specs) {
    if (spec.part == TensorPart::kAttention) n.attention += spec.numel();
    (spec.part == TensorPart::kIndexer ? n.indexer : n.total) += spec.numel();
  }
  return n;
}

}  // namespace fathom
