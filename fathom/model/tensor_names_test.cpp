#include "fathom/model/tensor_names.h"

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>

#include "fathom/tensor/safetensors.h"

namespace fathom {
namespace {

ModelConfig named(const std::string& name) {
  return read_config("tests/configs/" + name + ".json");
}

struct Row {
  const char* model;
  int64_t attention, indexer, dense_layer, moe_layer, total, active;
};

}  // namespace

TEST_CASE("parameter counts of the published models follow from the tensor list") {
  const Row rows[] = {
      {"deepseek-v3", 187107328, 0, 583483392, 11507286272, 671026419200, 37552282624},
      {"deepseek-v3.2", 187107328, 13959424, 583483392, 11507286272, 671877944064,
       37552282624 + 61 * 13959424LL},
      {"deepseek-v2-lite", 13763072, 0, 81007104, 584847872, 15706484224, 2661150208},
      {"moonlight", 13763072, 0, 82973184, 584847936, 15960110208, 2914774528},
      {"kimi-k2", 101124096, 0, 497500160, 17059365248, 1026408232448, 32861477888},
      {"glm-4.7-flash", 21759232, 0, 84677888, 635311424, 29943393920, 3896763136},
      {"glm-5", 165022208, 9371904, 391526912, 9868032768, 743911218432,
       41053701120 + 78 * 9371904LL}};
  for (const Row& row : rows) {
    CAPTURE(row.model);
    const ModelConfig c = named(row.model);
    const LayerCounts dense = count_layer(c, 0), moe = count_layer(c, c.first_k_dense_replace);
    CHECK(dense.attention == row.attention);
    CHECK(dense.indexer == row.indexer);
    CHECK(dense.total == row.dense_layer);
    CHECK(moe.total == row.moe_layer);
    const ParameterCounts n = count_parameters(c);
    CHECK(n.total == row.total);
    CHECK(n.active == row.active);
    CHECK(n.indexer == row.indexer * c.num_hidden_layers);
  }
}

TEST_CASE("the multi-token prediction layer of V3 and V3.2 with and without its copies") {
  const ParameterCounts v3 = count_parameters(named("deepseek-v3"));
  CHECK(v3.mtp == 11610068224);
  CHECK(v3.mtp + v3.mtp_copies == 13463426304);
  const ParameterCounts v32 = count_parameters(named("deepseek-v3.2"));
  CHECK(v32.mtp == 11624027648);
  CHECK(v32.mtp + v32.mtp_copies == 13477385728);
}

TEST_CASE("names and shapes are those of section 2.2") {
  std::map<std::string, TensorSpec> specs;
  for (TensorSpec& s : tensor_specs(named("deepseek-v3.2"))) {
    const std::string name = s.name;
    REQUIRE(specs.emplace(name, std::move(s)).second);
  }
  using Shape = std::vector<int64_t>;
  const std::string p = "model.layers.61.", a = p + "self_attn.", dense = "model.layers.2.mlp.";
  const std::pair<std::string, Shape> want[] = {
      {"model.embed_tokens.weight", {129280, 7168}},
      {"model.norm.weight", {7168}},
      {"lm_head.weight", {129280, 7168}},
      {p + "input_layernorm.weight", {7168}},
      {p + "post_attention_layernorm.weight", {7168}},
      {a + "q_a_proj.weight", {1536, 7168}},
      {a + "q_a_layernorm.weight", {1536}},
      {a + "q_b_proj.weight", {24576, 1536}},
      {a + "kv_a_proj_with_mqa.weight", {576, 7168}},
      {a + "kv_a_layernorm.weight", {512}},
      {a + "kv_b_proj.weight", {32768, 512}},
      {a + "o_proj.weight", {7168, 16384}},
      {a + "indexer.wq_b.weight", {8192, 1536}},
      {a + "indexer.wk.weight", {128, 7168}},
      {a + "indexer.k_norm.weight", {128}},
      {a + "indexer.k_norm.bias", {128}},
      {a + "indexer.weights_proj.weight", {64, 7168}},
      {dense + "gate_proj.weight", {18432, 7168}},
      {dense + "down_proj.weight", {7168, 18432}},
      {p + "mlp.gate.weight", {256, 7168}},
      {p + "mlp.gate.e_score_correction_bias", {256}},
      {p + "mlp.experts.255.up_proj.weight", {2048, 7168}},
      {p + "mlp.experts.0.down_proj.weight", {7168, 2048}},
      {p + "mlp.shared_experts.gate_proj.weight", {2048, 7168}},
      {p + "enorm.weight", {7168}},
      {p + "hnorm.weight", {7168}},
      {p + "eh_proj.weight", {7168, 14336}},
      {p + "shared_head.norm.weight", {7168}},
      {p + "embed_tokens.weight", {129280, 7168}},
      {p + "shared_head.head.weight", {129280, 7168}}};
  for (const auto& [name, shape] : want) {
    CAPTURE(name);
    REQUIRE(specs.count(name) == 1);
    CHECK(specs[name].shape == shape);
  }
  for (const auto& [name, spec] : specs) {
    CAPTURE(name);
    const bool never = spec.kind != TensorKind::kLinear || name.ends_with("eh_proj.weight") ||
                       name.ends_with("weights_proj.weight");
    CHECK(spec.quantizable == !never);
    CHECK(spec.optional ==
          (name == p + "embed_tokens.weight" || name == p + "shared_head.head.weight"));
  }
}

TEST_CASE("the list equals the tensors of every golden model") {
  for (const char* name : {"v32-nano", "v32-tiny", "v3-tiny", "v2lite-tiny", "v2-tiny",
                           "moonlight-tiny", "kimi-tiny", "glm-dsa-tiny", "mscale-split-tiny"}) {
    CAPTURE(name);
    const std::string folder = std::string("tests/golden/") + name;
    const SafetensorsFile file(folder + "/model.safetensors");
    size_t found = 0;
    for (const TensorSpec& spec : tensor_specs(read_config(folder + "/config.json"))) {
      const SafetensorsEntry* entry = file.find(spec.name);
      CHECK_MESSAGE((entry || spec.optional), spec.name);
      if (entry) CHECK_MESSAGE(entry->shape == spec.shape, spec.name);
      found += entry != nullptr;
    }
    CHECK(found == file.entries().size());
  }
}

TEST_CASE("the demo's names map there and back") {
  const std::pair<const char*, const char*> pairs[] = {
      {"model.embed_tokens.weight", "embed.weight"},
      {"model.norm.weight", "norm.weight"},
      {"lm_head.weight", "head.weight"},
      {"model.layers.0.input_layernorm.weight", "layers.0.attn_norm.weight"},
      {"model.layers.0.post_attention_layernorm.weight", "layers.0.ffn_norm.weight"},
      {"model.layers.0.self_attn.q_proj.weight", "layers.0.attn.wq.weight"},
      {"model.layers.3.self_attn.q_a_proj.weight", "layers.3.attn.wq_a.weight"},
      {"model.layers.3.self_attn.q_a_proj.weight_scale_inv", "layers.3.attn.wq_a.scale"},
      {"model.layers.3.self_attn.q_a_layernorm.weight", "layers.3.attn.q_norm.weight"},
      {"model.layers.3.self_attn.kv_a_proj_with_mqa.weight", "layers.3.attn.wkv_a.weight"},
      {"model.layers.3.self_attn.kv_a_layernorm.weight", "layers.3.attn.kv_norm.weight"},
      {"model.layers.3.self_attn.kv_b_proj.weight", "layers.3.attn.wkv_b.weight"},
      {"model.layers.3.self_attn.o_proj.weight", "layers.3.attn.wo.weight"},
      {"model.layers.3.self_attn.indexer.wq_b.weight", "layers.3.attn.indexer.wq_b.weight"},
      {"model.layers.3.self_attn.indexer.wk.weight_scale_inv", "layers.3.attn.indexer.wk.scale"},
      {"model.layers.3.self_attn.indexer.k_norm.bias", "layers.3.attn.indexer.k_norm.bias"},
      {"model.layers.3.mlp.gate.weight", "layers.3.ffn.gate.weight"},
      {"model.layers.3.mlp.gate.e_score_correction_bias", "layers.3.ffn.gate.bias"},
      {"model.layers.3.mlp.experts.7.gate_proj.weight", "layers.3.ffn.experts.7.w1.weight"},
      {"model.layers.3.mlp.experts.7.down_proj.weight", "layers.3.ffn.experts.7.w2.weight"},
      {"model.layers.3.mlp.shared_experts.up_proj.weight",
       "layers.3.ffn.shared_experts.w3.weight"}};
  for (const auto& [published, demo] : pairs) {
    CHECK(demo_name(published) == demo);
    CHECK(published_name(demo) == published);
  }
  CHECK(demo_name("embed.weight").empty());
  CHECK(published_name("model.norm.weight").empty());
  for (const char* name : {"v32-nano", "glm-dsa-tiny", "v2lite-tiny"}) {
    std::set<std::string> seen;
    for (const TensorSpec& spec :
         tensor_specs(read_config(std::string("tests/golden/") + name + "/config.json"))) {
      CHECK(published_name(demo_name(spec.name)) == spec.name);
      CHECK(seen.insert(demo_name(spec.name)).second);
    }
  }
}

}  // namespace fathom
