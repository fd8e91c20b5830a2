// All parameters of a model under their published names, as the forward pass wants them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/model/config.h"
#include "fathom/ops/linear.h"
#include "fathom/ops/moe.h"

namespace fathom {

struct IndexerWeights {
  Weight wq_b, wk, weights_proj;
  Value k_norm, k_norm_bias;
};

struct AttentionWeights {
  Weight q_proj;  // models without q_lora_rank
  Weight q_a_proj, q_b_proj;
  Value q_a_layernorm;
  Weight kv_a_proj_with_mqa, kv_b_proj, o_proj;
  Value kv_a_layernorm;
  std::vector<Weight> w_uk,
      w_uv;  // per head: the rows of kv_b_proj that make keys [N,C] and values [V,C]
  std::shared_ptr<IndexerWeights> indexer;  // null without DSA and in layers that share a selection
};

struct MlpWeights {
  Weight gate_proj, up_proj, down_proj;
};

struct MoeWeights {
  Weight gate;
  Tensor e_score_correction_bias;  // [E] or empty; moved by the balancing rule, not by gradients
  ExpertWeights experts;
  MlpWeights shared;  // empty when n_shared_experts is 0
};

struct BlockWeights {
  Value input_layernorm, post_attention_layernorm;
  AttentionWeights attention;
  MlpWeights mlp;                   // dense layers
  std::shared_ptr<MoeWeights> moe;  // null in dense layers
};

struct MtpWeights {  // one multi-token prediction layer; embedding and head are the main model's
  Value enorm, hnorm, shared_head_norm;
  Weight eh_proj;
  BlockWeights block;
};

struct Param {
  std::string name;
  Value value;
};

// Where a weight's numbers come from.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The tensor `name` of that shape in any dtype; throws Error when it is missing or has another
  // shape. `scale` is set for quantised ones.
  virtual Tensor find(const std::string& name, const std::vector<int64_t>& shape,
                      Tensor* scale) = 0;
};

enum class WeightUse : uint8_t {
  kTrain,  // masters in the real type of the Ctx, with gradients
  kServe,  // as stored; no masters
};

struct ModelWeights {
  Value embed_tokens;  // [W,D]
  std::vector<BlockWeights> layers;
  Value norm;
  Weight lm_head;
  std::vector<MtpWeights> mtp;

  std::vector<Param> params;   // trainable ones in file order; empty for kServe
  std::vector<Param> buffers;  // correction biases

  struct Packing {
    Weight weight;
    bool always_transposed = false;  // the forward pass uses it that way too
  };
  std::vector<Packing> packing;  // everything that pack() has to visit

  // After every change of the masters.
  void pack(const Ctx& ctx, bool with_transposed);
};

ModelWeights load_weights(const Ctx& ctx, const ModelConfig& config, WeightSource& source,
                          WeightUse use);

// Random weights: normal with the config's initializer_range, norms 1, biases 0. Each tensor has
// its own stream named by its published name, so that shape changes elsewhere leave it alone.
std::unique_ptr<WeightSource> random_source(Arena& arena, const ModelConfig& config, uint64_t seed);

}  // namespace fathom
