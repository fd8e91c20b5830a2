#include "fathom/model/weights.h"

#include <fmt/format.h>

#include <iterator>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"

namespace fathom {
namespace {

class Builder {
 public:
  Builder(const Ctx& ctx, const ModelConfig& config, WeightSource& source, WeightUse use,
          ModelWeights& out)
      : ctx_(ctx), c_(config), source_(source), use_(use), out_(out) {}

  Value vector(const std::string& name, int64_t n) {
    const Tensor t = dense(name, {n}, {n});
    return use_ == WeightUse::kTrain ? param(name, t) : constant(t);
  }

  Tensor buffer(const std::string& name, int64_t n) {
    const Tensor t = dense(name, {n}, {n});
    out_.buffers.push_back({name, constant(t)});
    return t;
  }

  Value table(const std::string& name, int64_t n, int64_t k) {
    if (use_ == WeightUse::kTrain) return param(name, dense(name, {n, k}, {n, k}));
    Tensor scale;
    return constant(source_.find(name, {n, k}, &scale));
  }

  Weight linear(const std::string& name, int64_t n, int64_t k) {
    Weight w = linear_unpacked(name, n, k);
    out_.packing.push_back({w});
    return w;
  }

  AttentionWeights attention(const std::string& p, int64_t layer) {
    AttentionWeights a;
    const int64_t D = c_.hidden_size, H = c_.num_attention_heads, N = c_.qk_nope_head_dim,
                  V = c_.v_head_dim;
    const int64_t C = c_.kv_lora_rank, Q = c_.q_lora_rank;
    if (Q > 0) {
      a.q_a_proj = linear(p + "q_a_proj.weight", Q, D);
      a.q_a_layernorm = vector(p + "q_a_layernorm.weight", Q);
      a.q_b_proj = linear(p + "q_b_proj.weight", H * c_.qk_head_dim(), Q);
    } else {
      a.q_proj = linear(p + "q_proj.weight", H * c_.qk_head_dim(), D);
    }
    a.kv_a_proj_with_mqa = linear(p + "kv_a_proj_with_mqa.weight", C + c_.qk_rope_head_dim, D);
    a.kv_a_layernorm = vector(p + "kv_a_layernorm.weight", C);
    a.kv_b_proj = linear(p + "kv_b_proj.weight", H * (N + V), C);
    const Weight heads = a.kv_b_proj.value() ? a.kv_b_proj : dequantised(a.kv_b_proj);
    for (int64_t h = 0; h < H; ++h) {
      a.w_uk.push_back(heads.rows(h * (N + V), N));
      a.w_uv.push_back(heads.rows(h * (N + V) + N, V));
      out_.packing.push_back({a.w_uk.back(), true});
      out_.packing.push_back({a.w_uv.back()});
    }
    a.o_proj = linear(p + "o_proj.weight", D, H * V);
    if (c_.has_dsa() && c_.has_indexer(layer)) {
      const int64_t J = c_.index_n_heads, I = c_.index_head_dim;
      a.indexer = std::make_shared<IndexerWeights>();
      a.indexer->wq_b = linear(p + "indexer.wq_b.weight", J * I, Q);
      a.indexer->wk = linear(p + "indexer.wk.weight", I, D);
      a.indexer->k_norm = vector(p + "indexer.k_norm.weight", I);
      a.indexer->k_norm_bias = vector(p + "indexer.k_norm.bias", I);
      a.indexer->weights_proj = linear(p + "indexer.weights_proj.weight", J, D);
    }
    return a;
  }

  MlpWeights mlp(const std::string& p, int64_t inner) {
    MlpWeights m;
    m.gate_proj = linear(p + "gate_proj.weight", inner, c_.hidden_size);
    m.up_proj = linear(p + "up_proj.weight", inner, c_.hidden_size);
    m.down_proj = linear(p + "down_proj.weight", c_.hidden_size, inner);
    return m;
  }

  std::shared_ptr<MoeWeights> moe(const std::string& p) {
    auto m = std::make_shared<MoeWeights>();
    m->gate = linear(p + "gate.weight", c_.n_routed_experts, c_.hidden_size);
    if (c_.has_correction_bias())
      m->e_score_correction_bias = buffer(p + "gate.e_score_correction_bias", c_.n_routed_experts);
    for (int64_t e = 0; e < c_.n_routed_experts; ++e) {
      const MlpWeights one = mlp(fmt::format("{}experts.{}.", p, e), c_.moe_intermediate_size);
      m->experts.gate_proj.push_back(one.gate_proj);
      m->experts.up_proj.push_back(one.up_proj);
      m->experts.down_proj.push_back(one.down_proj);
    }
    if (c_.n_shared_experts > 0)
      m->shared = mlp(p + "shared_experts.", c_.shared_intermediate_size());
    return m;
  }

  BlockWeights block(int64_t layer) {
    const std::string p = fmt::format("model.layers.{}.", layer);
    BlockWeights b;
    b.input_layernorm = vector(p + "input_layernorm.weight", c_.hidden_size);
    b.attention = attention(p + "self_attn.", layer);
    b.post_attention_layernorm = vector(p + "post_attention_layernorm.weight", c_.hidden_size);
    if (c_.is_moe_layer(layer))
      b.moe = moe(p + "mlp.");
    else
      b.mlp = mlp(p + "mlp.", c_.intermediate_size);
    return b;
  }

 private:
  Value param(const std::string& name, const Tensor& t) {
    Value v = parameter(t);
    out_.params.push_back({name, v});
    return v;
  }

  // Converted to the real type and owned.
  Tensor dense(const std::string& name, const std::vector<int64_t>& shape,
               std::initializer_list<int64_t> dims) {
    Tensor scale;
    const Tensor raw = source_.find(name, shape, &scale);
    Tensor t = empty(ctx_.arena, ctx_.real, dims);
    if (scale)
      dequantise(raw, scale, t);
    else
      convert(raw, t);
    return t;
  }

  // Exact product of code and block scale, rounded once to the target type.
  static void dequantise(const View& raw, const View& scale, const View& to) {
    const int64_t rows = raw.dim[0], columns = raw.dim[1];
    const auto put = [&]<class R>(R* y) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          y[i * columns + j] = static_cast<R>(
              static_cast<double>(to_float(raw.as<e4m3>()[i * columns + j])) *
              static_cast<double>(scale.as<float>()[i / 128 * scale.dim[1] + j / 128]));
    };
    if (to.dtype == DType::kF64)
      put(to.as<double>());
    else
      put(to.as<float>());
  }

  Weight linear_unpacked(const std::string& name, int64_t n, int64_t k) {
    if (use_ == WeightUse::kTrain) {
      Weight w = Weight::trainable(name, dense(name, {n, k}, {n, k}));
      out_.params.push_back({name, w.value()});
      return w;
    }
    Tensor scale;
    Tensor raw = source_.find(name, {n, k}, &scale);
    const DType t = raw.view.dtype;
    if (t == DType::kF16 || t == DType::kF64 || (ctx_.real == DType::kF64 && !scale))
      return Weight::stored(name, dense(name, {n, k}, {n, k}), {});
    return Weight::stored(name, std::move(raw), std::move(scale));
  }

  Weight dequantised(const Weight& w) {
    if (!w.scale()) return w;
    Tensor t = empty(ctx_.arena, ctx_.real, {w.out(), w.in()});
    dequantise(w.raw(), w.scale(), t);
    return Weight::stored(w.name(), t, {});
  }

  const Ctx& ctx_;
  const ModelConfig& c_;
  WeightSource& source_;
  WeightUse use_;
  ModelWeights& out_;
};

class RandomSource final : public WeightSource {
 public:
  RandomSource(Arena& arena, const ModelConfig& config, uint64_t seed)
      : arena_(arena), std_(config.initializer_range), seed_(seed) {}

  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor*) override {
    Tensor t = shape.size() == 1 ? empty(arena_, DType::kF32, {shape[0]})
                                 : empty(arena_, DType::kF32, {shape[0], shape[1]});
    float* x = t.as<float>();
    const int64_t n = t.view.numel();
    if (shape.size() == 1) {
      const bool bias = name.ends_with("bias");
      std::fill(x, x + n, bias ? 0.0f : 1.0f);
    } else {
      Rng rng(seed_, name);
      for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(std_ * rng.normal());
    }
    return t;
  }

 private:
  Arena& arena_;
  double std_;
  uint64_t seed_;
};

}  // namespace

ModelWeights load_weights(const Ctx& ctx, const ModelConfig& config, WeightSource& source,
                          WeightUse use) {
  ModelWeights w;
  Builder b(ctx, config, source, use, w);
  w.embed_tokens = b.table("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) w.layers.push_back(b.block(l));
  w.norm = b.vector("model.norm.weight", config.hidden_size);
  if (config.tie_word_embeddings) {
    w.lm_head = Weight::tied("lm_head.weight", w.embed_tokens);
    w.packing.push_back({w.lm_head});
  } else {
    w.lm_head = b.linear("lm_head.weight", config.vocab_size, config.hidden_size);
  }
  for (int64_t l = config.num_hidden_layers; l < config.num_layers(); ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    MtpWeights m;
    m.enorm = b.vector(p + "enorm.weight", config.hidden_size);
    m.hnorm = b.vector(p + "hnorm.weight", config.hidden_size);
    m.eh_proj = b.linear(p + "eh_proj.weight", config.hidden_size, 2 * config.hidden_size);
    m.block = b.block(l);
    m.shared_head_norm = b.vector(p + "shared_head.norm.weight", config.hidden_size);
    w.mtp.push_back(std::move(m));
  }
  w.pack(ctx, use == WeightUse::kTrain);
  return w;
}

void ModelWeights::pack(const Ctx& ctx, bool with_transposed) {
  // Most weights are small, so threads take whole weights; from the back, as the output head, the
  // largest, comes last.
  const int64_t count = std::ssize(packing);
  ctx.pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      Packing& p = packing[static_cast<size_t>(count - 1 - i)];
      p.weight.pack(ctx, with_transposed || p.always_transposed);
    }
  });
}

std::unique_ptr<WeightSource> random_source(Arena& arena, const ModelConfig& config,
                                            uint64_t seed) {
  return std::make_unique<RandomSource>(arena, config, seed);
}

}  // namespace fathom
