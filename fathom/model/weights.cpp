#include "fathom/model/weights.h"

#include <fmt/core.h>

#include <iterator>
#include <unordered_map>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/expert_cache.h"
#include "fathom/model/memory_plan.h"
#include "fathom/model/tensor_names.h"

namespace fathom {
namespace {

class Builder {
 public:
  Builder(const Ctx& ctx, const ModelConfig& config, WeightSource& source, WeightUse use,
          const LoadOptions& options, ModelWeights& out)
      : ctx_(ctx), c_(config), source_(source), use_(use), options_(options), out_(out) {
    FM_CHECK(!options.packed || (use == WeightUse::kServe && options.memory_bytes == 0),
             "packed forms, and a limit of {} bytes", options.memory_bytes);
    if (options.packed) return;
    if (use == WeightUse::kServe && (options.memory_bytes > 0 || options.progress)) plan();
  }

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
    if (options_.packed) return packed(name);
    bool converted = false;
    Weight w = linear_unpacked(name, n, k, &converted);
    add_packing({w}, converted);
    return out_.packing.back().weight;
  }

  Weight tied_head() {
    if (options_.packed) {
      Weight w = Weight::tied("lm_head.weight", out_.embed_tokens);
      options_.packed->give_forms(ctx_, next_packed(w.name()), w);
      return w;
    }
    add_packing({Weight::tied("lm_head.weight", out_.embed_tokens)}, false);
    return out_.packing.back().weight;
  }

  AttentionWeights attention(const std::string& p, int64_t layer) {
    AttentionWeights a;
    const int64_t D = c_.hidden_size, H = c_.num_attention_heads, V = c_.v_head_dim;
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
    kv_heads(a, p + "kv_b_proj.weight");
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

  // kv_b_proj, and its rows by head for the absorbed products.
  void kv_heads(AttentionWeights& a, const std::string& name) {
    const int64_t H = c_.num_attention_heads, N = c_.qk_nope_head_dim, V = c_.v_head_dim;
    if (options_.packed) return packed_kv_heads(a, name);
    bool converted = false;
    a.kv_b_proj = linear_unpacked(name, H * (N + V), c_.kv_lora_rank, &converted);
    if (options_.quant != Quant::kNone) return coded_kv_heads(a);
    const Weight heads = dequantised(a.kv_b_proj, &converted);
    for (int64_t h = 0; h < H; ++h) {
      add_packing({heads.rows(h * (N + V), N), false, true}, converted);
      a.w_uk.push_back(out_.packing.back().weight);
      add_packing({heads.rows(h * (N + V) + N, V)}, converted);
      a.w_uv.push_back(out_.packing.back().weight);
    }
    if (options_.memory_bytes == 0) add_packing({a.kv_b_proj}, false);
  }

  void coded_kv_heads(AttentionWeights& a) {
    const int64_t H = c_.num_attention_heads, N = c_.qk_nope_head_dim, V = c_.v_head_dim,
                  C = c_.kv_lora_rank;
    const std::string& name = a.kv_b_proj.name();
    Arena passing;
    const Tensor all = empty(passing, DType::kF32, {H * (N + V), C});
    dequantize({.tensor = a.kv_b_proj.raw(),
                .scale = a.kv_b_proj.scale(),
                .block_rows = 128,
                .block_cols = 128},
               all);
    const Tensor turned_CN = empty(passing, DType::kF32, {C, N});
    a.uk_form = HeadForm::kTransposed;
    for (int64_t h = 0; h < H; ++h) {
      const float* keys = all.as<float>() + h * (N + V) * C;
      for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < C; ++i) turned_CN.as<float>()[i * N + n] = keys[n * C + i];
      add_packing({coded(name, turned_CN, Quant::kQ8)}, true);
      a.w_uk.push_back(out_.packing.back().weight);
      add_packing({coded(name, slice(all.view, 0, h * (N + V) + N, V), Quant::kQ8)}, true);
      a.w_uv.push_back(out_.packing.back().weight);
    }
  }

  void packed_kv_heads(AttentionWeights& a, const std::string& name) {
    const bool coded = options_.quant != Quant::kNone;
    a.uk_form = coded ? HeadForm::kTransposed : HeadForm::kPlain;
    for (int64_t h = 0; h < c_.num_attention_heads; ++h) {
      a.w_uk.push_back(packed(name));
      a.w_uv.push_back(packed(name));
    }
    if (!coded) a.kv_b_proj = packed(name);
  }

  MlpWeights mlp(const std::string& p, int64_t inner) {
    MlpWeights m;
    m.gate_proj = linear(p + "gate_proj.weight", inner, c_.hidden_size);
    m.up_proj = linear(p + "up_proj.weight", inner, c_.hidden_size);
    m.down_proj = linear(p + "down_proj.weight", c_.hidden_size, inner);
    return m;
  }

  ExpertWeights experts(const std::string& p) {
    ExpertWeights w;
    for (int64_t e = 0; e < c_.n_routed_experts; ++e) {
      const MlpWeights one = mlp(fmt::format("{}{}.", p, e), c_.moe_intermediate_size);
      w.gate_proj.push_back(one.gate_proj);
      w.up_proj.push_back(one.up_proj);
      w.down_proj.push_back(one.down_proj);
    }
    return w;
  }

  std::shared_ptr<MoeWeights> moe(const std::string& p) {
    auto m = std::make_shared<MoeWeights>();
    m->gate = linear(p + "gate.weight", c_.n_routed_experts, c_.hidden_size);
    if (c_.has_correction_bias())
      m->e_score_correction_bias = buffer(p + "gate.e_score_correction_bias", c_.n_routed_experts);
    if (cache_)
      m->experts.stream = expert_stream(cache_, num_streams_++);
    else
      m->experts = experts(p + "experts.");
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
  void plan() {
    auto experts = collect_experts(c_, source_);
    out_.plan = plan_memory(ctx_.kernels, c_, source_, experts, options_);
    if (!out_.plan.streams()) return;
    cache_ = std::make_shared<ExpertCache>(
        ctx_.kernels, std::move(experts),
        ExpertCacheOptions{.num_slots = out_.plan.num_slots,
                           .num_loaders = options_.num_loaders,
                           .drop_page_cache = options_.drop_page_cache});
    out_.expert_cache = cache_;
  }

  size_t next_packed(const std::string& name) {
    const std::vector<PackedEntry>& entries = options_.packed->entries();
    FM_CHECK(num_packed_ < entries.size() && entries[num_packed_].name == name,
             "{} is not number {} of the packed weights", name, num_packed_);
    return num_packed_++;
  }

  Weight packed(const std::string& name) {
    return options_.packed->weight(ctx_, next_packed(name));
  }

  // Weights for serving are packed at once, so that no more than one is there in two forms; of
  // `converted` ones the first form goes.
  void add_packing(Packing p, bool converted) {
    if (use_ == WeightUse::kServe) {
      ModelWeights::pack(ctx_, p, false);
      if (converted && p.weight.packed_bytes(ctx_.kernels) > 0) p.weight.forget_raw();
      const Kernels& k = ctx_.kernels;
      count((p.forward ? block_bytes(p.weight.packed_bytes(k, false)) : 0) +
            (p.transposed ? block_bytes(p.weight.packed_bytes(k, true)) : 0));
    }
    out_.packing.push_back(std::move(p));
  }

  void count(int64_t packed_bytes) {
    done_bytes_ += packed_bytes;
    const MemoryPlan& p = out_.plan;
    const int64_t all_bytes = p.resident_bytes + (cache_ ? 0 : p.num_experts * p.slot_bytes);
    if (options_.progress) options_.progress->put(std::min(done_bytes_, all_bytes), all_bytes);
    constexpr int64_t kReleaseEvery = int64_t{256} << 20;
    if (done_bytes_ / kReleaseEvery != num_released_) source_.release_pages();
    num_released_ = done_bytes_ / kReleaseEvery;
  }

  Value param(const std::string& name, const Tensor& t) {
    Value v = parameter(t);
    out_.params.push_back({name, v});
    return v;
  }

  // Converted to the real type and owned.
  Tensor dense(const std::string& name, const std::vector<int64_t>& shape,
               std::initializer_list<int64_t> dims) {
    return dense(ctx_.arena, name, shape, dims);
  }

  Tensor dense(Arena& arena, const std::string& name, const std::vector<int64_t>& shape,
               std::initializer_list<int64_t> dims) {
    Tensor scale;
    const Tensor raw = source_.find(name, shape, &scale);
    Tensor t = empty(arena, ctx_.real, dims);
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

  // `converted`: its numbers are a copy in memory, not the file's.
  Weight linear_unpacked(const std::string& name, int64_t n, int64_t k, bool* converted) {
    if (use_ == WeightUse::kTrain) {
      Weight w = Weight::trainable(name, dense(name, {n, k}, {n, k}));
      out_.params.push_back({name, w.value()});
      return w;
    }
    const StoredWeight w = source_.stored(name, {n, k});
    if (w.file) w.file.file->request(w.file.offset, w.file.size_bytes);
    Arena passing;  // goes with the numbers once they are packed
    if (w.quant != Quant::kNone && !w.has_codes()) {
      *converted = true;
      const Tensor values = empty(passing, DType::kF32, {n, k});
      dequantize(w, values);
      return coded(name, values, w.quant);
    }
    *converted = !packs_as_stored(w) || (ctx_.real == DType::kF64 && !w.scale);
    if (!*converted) return Weight::stored(name, w.tensor, w.scale);
    return Weight::stored(name, dense(passing, name, {n, k}, {n, k}), {});
  }

  Weight coded(const std::string& name, const View& w_NK, Quant q) {
    Arena passing;
    const QuantizedWeight out = empty_quantized(passing, q, w_NK.dim[0], w_NK.dim[1]);
    quantize(ctx_.pool, w_NK, q, out);
    out_.quant_losses.push_back({name, q, measure_quantized(ctx_.pool, w_NK, out)});
    return Weight::stored(name, out.codes, out.scale);
  }

  Weight dequantised(const Weight& w, bool* converted) {
    if (w.value() || !w.scale()) return w;
    *converted = true;
    Arena passing, narrow;
    Tensor t = empty(passing, ctx_.real, {w.out(), w.in()});
    dequantise(w.raw(), w.scale(), t);
    if (ctx_.real != DType::kF32 || head_type({w.raw(), w.scale(), 128, 128, {}}) == DType::kF32)
      return Weight::stored(w.name(), t, {});
    const Tensor half = empty(narrow, DType::kBF16, {w.out(), w.in()});
    convert(t, half);
    return Weight::stored(w.name(), half, {});
  }

  const Ctx& ctx_;
  const ModelConfig& c_;
  WeightSource& source_;
  WeightUse use_;
  LoadOptions options_;
  ModelWeights& out_;
  std::shared_ptr<ExpertCache> cache_;
  int64_t num_streams_ = 0;
  int64_t done_bytes_ = 0, num_released_ = 0;
  size_t num_packed_ = 0;
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

// Says of each weight which codes it is to get.
class QuantizingSource final : public WeightSource {
 public:
  QuantizingSource(WeightSource& source, const ModelConfig& config, Quant quant) : source_(source) {
    for (const TensorSpec& spec : tensor_specs(config)) quants_[spec.name] = quant_of(spec, quant);
  }
  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor* scale) override {
    return source_.find(name, shape, scale);
  }
  StoredWeight stored(const std::string& name, const std::vector<int64_t>& shape) override {
    StoredWeight w = source_.stored(name, shape);
    w.quant = quants_.at(name);
    return w;
  }
  void release_pages() override { source_.release_pages(); }

 private:
  WeightSource& source_;
  std::unordered_map<std::string, Quant> quants_;
};

// What the config says is done already; what the options say is done now.
Quant quant_of_model(const ModelConfig& config, WeightUse use, Quant wanted) {
  if (use == WeightUse::kTrain) return Quant::kNone;
  if (wanted == Quant::kNone || config.quant() == Quant::kNone || wanted == config.quant())
    return std::max(wanted, config.quant());
  throw Error(Code::kInvalidArgument,
              fmt::format("expected a model of {}, found one of {}", quant_name(wanted),
                          quant_name(config.quant())),
              "quantise the original checkpoint instead");
}

}  // namespace

ModelWeights load_weights(const Ctx& ctx, const ModelConfig& config, WeightSource& original,
                          WeightUse use, const LoadOptions& wanted) {
  LoadOptions options = wanted;
  options.quant = quant_of_model(config, use, wanted.quant);
  QuantizingSource source(original, config, options.quant);
  ModelWeights w;
  Builder b(ctx, config, source, use, options, w);
  w.embed_tokens = b.table("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) w.layers.push_back(b.block(l));
  w.norm = b.vector("model.norm.weight", config.hidden_size);
  if (config.tie_word_embeddings) {
    w.lm_head = b.tied_head();
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
  if (use == WeightUse::kTrain) w.pack(ctx, true);
  source.release_pages();
  return w;
}

void ModelWeights::pack(const Ctx& ctx, bool with_transposed) {
  // Most weights are small, so threads take whole weights; from the back, as the output head, the
  // largest, comes last.
  const int64_t count = std::ssize(packing);
  ctx.pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      pack(ctx, packing[static_cast<size_t>(count - 1 - i)], with_transposed);
  });
}

void ModelWeights::pack(const Ctx& ctx, Packing p, bool both) {
  if (p.forward || both) p.weight.pack_form(ctx, false);
  if (p.transposed || both)
    p.weight.pack_form(ctx, true, p.transposed ? GradProducts::kF32 : ctx.gradient_products);
}

StoredWeight WeightSource::stored(const std::string& name, const std::vector<int64_t>& shape) {
  StoredWeight w{.block_rows = 128, .block_cols = 128};
  w.tensor = find(name, shape, &w.scale);
  return w;
}

std::unique_ptr<WeightSource> random_source(Arena& arena, const ModelConfig& config,
                                            uint64_t seed) {
  return std::make_unique<RandomSource>(arena, config, seed);
}

}  // namespace fathom
