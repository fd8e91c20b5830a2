// Test support: engines of both precisions, a model that is small enough for finite differences,
// and packed batches.
#pragma once

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/objective.h"

namespace fathom::testing {

struct Engine {
  explicit Engine(DType type = DType::kF64, int threads = 1) : pool(threads), real(type) {}
  Ctx ctx(Tape* tape = nullptr, Probe* probe = nullptr) {
    return {.kernels = real == DType::kF64 ? cpu_ref() : cpu_simd(),
            .pool = pool,
            .arena = arena,
            .real = real,
            .tape = tape,
            .probe = probe};
  }
  ThreadPool pool;
  Arena arena;
  DType real;
};

// V3.2 in small: a dense layer, an expert layer, a prediction layer, an indexer in each.
inline ModelConfig nano_config() {
  ModelConfig c;
  c.architectures = {"DeepseekV32ForCausalLM"};
  c.model_type = "deepseek_v32";
  c.vocab_size = 24;
  c.hidden_size = 16;
  c.intermediate_size = 20;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.q_lora_rank = 8;
  c.kv_lora_rank = 8;
  c.qk_nope_head_dim = 4;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 4;
  c.n_routed_experts = 4;
  c.num_experts_per_tok = 2;
  c.n_shared_experts = 1;
  c.moe_intermediate_size = 8;
  c.first_k_dense_replace = 1;
  c.n_group = 2;
  c.topk_group = 1;
  c.routed_scaling_factor = 2.5;
  c.num_nextn_predict_layers = 1;
  c.index_topk = 3;
  c.index_n_heads = 2;
  c.index_head_dim = 8;
  c.initializer_range = 0.3;
  check_config(c, "nano");
  return c;
}

// Random tokens; the last row of every second sequence has no target, and one row no weight.
inline TrainBatch random_batch(std::initializer_list<int> lengths, uint64_t seed = 5,
                               uint64_t vocab = 24) {
  Rng rng(seed, "random_batch");
  TrainBatch b;
  b.bounds.push_back(0);
  for (const int n : lengths) {
    const bool cut = b.bounds.size() % 2 == 0;
    for (int i = 0; i < n; ++i) {
      const bool unknown = cut && i == n - 1;
      b.token.push_back(static_cast<int32_t>(rng.below(vocab)));
      b.target.push_back(unknown ? -1 : static_cast<int32_t>(rng.below(vocab)));
      b.weight.push_back(unknown || i == 2 ? 0 : 1);
    }
    b.bounds.push_back(static_cast<int32_t>(b.token.size()));
  }
  return b;
}

// The three published stages: pre-training, warm-up of the indexer, sparse training.
inline ObjectiveOptions stage_a() {
  ObjectiveOptions o;
  o.mtp_weight = 0.3;
  o.balance_weight = 0.01;
  return o;
}
inline ObjectiveOptions stage_b() {
  ObjectiveOptions o;
  o.lm_weight = 0;
  o.indexer_kl_weight = 1;
  return o;
}
inline ObjectiveOptions stage_c() {
  ObjectiveOptions o;
  o.attention = "sparse";
  o.mtp_weight = 0.3;
  o.indexer_kl_weight = 1;
  return o;
}

inline bool is_indexer(const std::string& name) { return name.find(".indexer.") != name.npos; }

inline bool same_bits(const View& a, const View& b) {
  return a.size_bytes() == b.size_bytes() &&
         std::memcmp(a.data, b.data, static_cast<size_t>(a.size_bytes())) == 0;
}

inline double largest(const View& v) {
  double m = 0;
  for (int64_t i = 0; i < v.numel(); ++i) m = std::max(m, std::fabs(get_element(v, i)));
  return m;
}

}  // namespace fathom::testing
