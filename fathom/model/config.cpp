#include "fathom/model/config.h"

#include <fmt/core.h>

#include <cmath>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// 0.1 a ln(factor) + 1, the temperature of YaRN.
double yarn_mscale(double factor, double a) {
  return factor <= 1 ? 1 : 0.1 * a * std::log(factor) + 1;
}

struct Checker {
  const std::string& what;

  template <class T, class Rule>
  void require(bool ok, const char* field, const Rule& rule, const T& found) const {
    if (!ok)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: {}: expected {}, found {}", what, field, rule, found),
                  "correct the field");
  }
  void in_range(const char* field, int64_t value, int64_t low, int64_t high) const {
    require(value >= low && value <= high, field, fmt::format("{} to {}", low, high), value);
  }
  void positive(const char* field, double value) const {
    require(value > 0 && std::isfinite(value), field, "a positive number", value);
  }
};

// Generous, and small enough that no product of two sizes or count of elements overflows.
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxHeads = int64_t{1} << 16;
constexpr int64_t kMaxHeadDim = int64_t{1} << 16;
constexpr int64_t kMaxLayers = 4096;

void check_sizes(const ModelConfig& c, const Checker& check) {
  check.in_range("vocab_size", c.vocab_size, 1, kMaxWidth);
  check.in_range("hidden_size", c.hidden_size, 1, kMaxWidth);
  check.in_range("intermediate_size", c.intermediate_size, 1, kMaxWidth);
  check.in_range("num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  check.in_range("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, kMaxLayers);
  check.in_range("max_position_embeddings", c.max_position_embeddings, 1, int64_t{1} << 40);
  check.in_range("bos_token_id", c.bos_token_id, -1, c.vocab_size - 1);
  for (const int64_t id : c.eos_token_id) check.in_range("eos_token_id", id, 0, c.vocab_size - 1);
  check.positive("rms_norm_eps", c.rms_norm_eps);
  check.require(c.initializer_range >= 0 && std::isfinite(c.initializer_range), "initializer_range",
                "a number not below 0", c.initializer_range);
}

void check_attention(const ModelConfig& c, const Checker& check) {
  check.in_range("num_attention_heads", c.num_attention_heads, 1, kMaxHeads);
  check.in_range("q_lora_rank", c.q_lora_rank, 0, kMaxWidth);
  check.in_range("kv_lora_rank", c.kv_lora_rank, 1, kMaxWidth);
  check.in_range("qk_nope_head_dim", c.qk_nope_head_dim, 1, kMaxHeadDim);
  check.in_range("qk_rope_head_dim", c.qk_rope_head_dim, 2, kMaxHeadDim);
  check.require(c.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", "an even number",
                c.qk_rope_head_dim);
  check.in_range("v_head_dim", c.v_head_dim, 1, kMaxHeadDim);
  check.require(c.rope_theta > 1 && std::isfinite(c.rope_theta), "rope_theta", "a number above 1",
                c.rope_theta);
  if (!c.rope_scaling) return;
  const RopeScaling& y = *c.rope_scaling;
  check.positive("rope_scaling.factor", y.factor);
  check.in_range("rope_scaling.original_max_position_embeddings",
                 y.original_max_position_embeddings, 1, int64_t{1} << 40);
  check.positive("rope_scaling.beta_fast", y.beta_fast);
  check.positive("rope_scaling.beta_slow", y.beta_slow);
  check.require(y.mscale >= 0 && std::isfinite(y.mscale), "rope_scaling.mscale",
                "a number not below 0", y.mscale);
  check.require(y.mscale_all_dim >= 0 && std::isfinite(y.mscale_all_dim),
                "rope_scaling.mscale_all_dim", "a number not below 0", y.mscale_all_dim);
  if (y.attention_factor) check.positive("rope_scaling.attention_factor", *y.attention_factor);
}

void check_experts(const ModelConfig& c, const Checker& check) {
  check.in_range("n_routed_experts", c.n_routed_experts, 0, int64_t{1} << 16);
  check.in_range("first_k_dense_replace", c.first_k_dense_replace, 0, kMaxLayers);
  check.in_range("moe_layer_freq", c.moe_layer_freq, 1, kMaxLayers);
  if (c.n_routed_experts == 0) return;
  check.in_range("num_experts_per_tok", c.num_experts_per_tok, 1, c.n_routed_experts);
  check.in_range("n_shared_experts", c.n_shared_experts, 0, 1024);
  check.in_range("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxWidth);
  check.in_range("n_group", c.n_group, 1, c.n_routed_experts);
  check.require(c.n_routed_experts % c.n_group == 0, "n_group",
                fmt::format("a divisor of n_routed_experts = {}", c.n_routed_experts), c.n_group);
  check.in_range("topk_group", c.topk_group, 1, c.n_group);
  const int64_t reachable = c.topk_group * (c.n_routed_experts / c.n_group);
  check.require(
      c.topk_method == TopkMethod::kGreedy || c.num_experts_per_tok <= reachable,
      "num_experts_per_tok",
      fmt::format("at most the {} experts of topk_group = {} groups", reachable, c.topk_group),
      c.num_experts_per_tok);
  check.require(c.topk_method != TopkMethod::kNoauxTc || c.scoring_func == ScoringFunc::kSigmoid,
                "scoring_func", "sigmoid with topk_method noaux_tc",
                scoring_func_name(c.scoring_func));
  check.positive("routed_scaling_factor", c.routed_scaling_factor);
}

void check_indexer(const ModelConfig& c, const Checker& check) {
  check.in_range("index_topk", c.index_topk, 0, int64_t{1} << 40);
  if (!c.has_dsa()) {
    check.require(c.indexer_full.empty(), "indexer_types", "index_topk beside it", "none");
    return;
  }
  check.in_range("index_n_heads", c.index_n_heads, 1, kMaxHeads);
  check.in_range("index_head_dim", c.index_head_dim, c.qk_rope_head_dim, kMaxHeadDim);
  check.require(c.q_lora_rank > 0, "q_lora_rank",
                "a positive integer, because the indexer's query comes from the query latent",
                c.q_lora_rank);
  if (c.indexer_full.empty()) return;
  check.require(c.indexer_full.size() == static_cast<size_t>(c.num_layers()), "indexer_types",
                fmt::format("one entry for each of {} layers", c.num_layers()),
                c.indexer_full.size());
  check.require(c.indexer_full[0], "indexer_types", "an indexer in layer 0", "a shared one");
}

}  // namespace

const char* scoring_func_name(ScoringFunc f) {
  return f == ScoringFunc::kSigmoid ? "sigmoid" : "softmax";
}

const char* topk_method_name(TopkMethod m) {
  switch (m) {
    case TopkMethod::kNoauxTc:
      return "noaux_tc";
    case TopkMethod::kGreedy:
      return "greedy";
    case TopkMethod::kGroupLimitedGreedy:
      return "group_limited_greedy";
  }
  return "?";
}

bool ModelConfig::is_moe_layer(int64_t layer) const {
  return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
}

bool ModelConfig::has_indexer(int64_t layer) const {
  FM_CHECK(layer >= 0 && layer < num_layers(), "layer {} of {}", layer, num_layers());
  return has_dsa() && (indexer_full.empty() || indexer_full[static_cast<size_t>(layer)]);
}

int64_t ModelConfig::indexer_source(int64_t layer) const {
  FM_CHECK(has_dsa(), "no indexer in this model");
  while (layer > 0 && !has_indexer(layer)) --layer;
  return layer;
}

double ModelConfig::softmax_scale() const {
  const double plain = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (!rope_scaling) return plain;
  const double m = yarn_mscale(rope_scaling->factor, rope_scaling->mscale_all_dim);
  return plain * m * m;
}

double ModelConfig::rope_amplitude() const {
  if (!rope_scaling) return 1;
  const RopeScaling& y = *rope_scaling;
  if (y.attention_factor) return *y.attention_factor;
  return yarn_mscale(y.factor, y.mscale) / yarn_mscale(y.factor, y.mscale_all_dim);
}

void check_config(const ModelConfig& config, const std::string& what) {
  const Checker check{what};
  check_sizes(config, check);
  check_attention(config, check);
  check_experts(config, check);
  check_indexer(config, check);
}

}  // namespace fathom
