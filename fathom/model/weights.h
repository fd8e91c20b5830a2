// All parameters of a model under their published names, as the forward pass wants them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fathom/base/work_progress.h"
#include "fathom/model/config.h"
#include "fathom/model/packed_weights.h"
#include "fathom/model/stored_weight.h"
#include "fathom/ops/linear.h"
#include "fathom/ops/moe.h"

namespace fathom {

class ExpertCache;

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
  // Per head: the rows of kv_b_proj that make keys and values [V,C]. Keys [N,C] with kPlain;
  // turned, [C,N], with kTransposed: codes have their scales along what is summed.
  std::vector<Weight> w_uk, w_uv;
  HeadForm uk_form = HeadForm::kPlain;
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
  // The same as the file has it, unusual types too; nothing but scales is read.
  virtual StoredWeight stored(const std::string& name, const std::vector<int64_t>& shape);
  // What was read so far is not needed soon: it may leave memory.
  virtual void release_pages() {}
};

// How weights for serving share a limited memory. Training has all of it.
struct LoadOptions {
  int64_t memory_bytes = 0;      // of packed weights and reserved_bytes; 0: no limit
  int64_t reserved_bytes = 0;    // of memory_bytes for others: key cache, activations
  int64_t num_loaders = 2;       // threads that fetch experts
  bool drop_page_cache = false;  // what was read leaves the system's page cache too
  Quant quant = Quant::kNone;    // codes for weights that are not coded yet; kServe only
  WorkProgress* progress = nullptr;
  // Packed forms of this model made with these options, used in place; without a limit of memory.
  std::shared_ptr<const PackedWeights> packed;
};

// What coding a weight at load has cost.
struct QuantLoss {
  std::string name;
  Quant quant = Quant::kNone;
  QuantError error;
};

// What a model takes for serving; kernels decide, so it is known before anything is packed.
struct MemoryPlan {
  int64_t resident_bytes = 0;  // packed weights, routed experts apart
  int64_t reserved_bytes = 0;
  int64_t num_experts = 0;    // in all layers
  int64_t slot_bytes = 0;     // a packed expert
  int64_t staging_bytes = 0;  // to fetch experts
  int64_t num_slots = 0;      // experts in memory; num_experts: all of them, packed at load

  bool streams() const { return num_slots < num_experts; }
  int64_t full_bytes() const { return resident_bytes + reserved_bytes + num_experts * slot_bytes; }
  int64_t least_bytes() const {
    return resident_bytes + reserved_bytes + staging_bytes + slot_bytes;
  }
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

  std::vector<Packing> packing;  // everything that pack() has to visit

  std::vector<QuantLoss> quant_losses;  // of all that was coded; not of streamed experts

  MemoryPlan plan;  // for serving with a limit or with progress; else empty
  std::shared_ptr<ExpertCache> expert_cache;  // where experts are streamed

  // After every change of the masters.
  void pack(const Ctx& ctx, bool with_transposed);
  static void pack(const Ctx& ctx, Packing packing, bool both);
};

// Throws Error when options.memory_bytes is less than the plan's least_bytes(), and when
// options.quant contradicts the config's. Weights with a limit, and coded ones, lack the naive form
// of attention.
ModelWeights load_weights(const Ctx& ctx, const ModelConfig& config, WeightSource& source,
                          WeightUse use, const LoadOptions& options = {});

// Random weights: normal with the config's initializer_range, norms 1, biases 0. Each tensor has
// its own stream named by its published name, so that shape changes elsewhere leave it alone.
std::unique_ptr<WeightSource> random_source(Arena& arena, const ModelConfig& config, uint64_t seed);

}  // namespace fathom
