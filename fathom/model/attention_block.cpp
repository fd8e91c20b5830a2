// Legend: docs/symbols.md. X = C + R, a cached row. Y = H * (N + R). Z = N + R or N + V of one
// head.
#include "fathom/model/attention_block.h"

#include <cmath>
#include <optional>
#include <vector>

#include "fathom/model/rope_frequencies.h"
#include "fathom/ops/fp8.h"

namespace fathom {
namespace {

constexpr double kIndexerNormEps = 1e-6;  // always, whatever rms_norm_eps is (model spec 0.12)

struct IndexerOut {
  Value q_TJI, w_TJ, k_TI;  // without scores k_TI alone
};

bool runs_indexer(const Ctx& ctx, const AttentionWeights& w, const Step& step) {
  return w.indexer && (step.selection == KeySelection::kSparse || step.cache || ctx.probe ||
                       step.indexer_kl_scale != 0);
}

// Whether anything depends on the indexer's scores. Where rows have no more keys than are selected,
// all are, and only the indexer's keys are needed, for later rows.
bool needs_scores(const Ctx& ctx, const LayerContext& lc, const Step& step) {
  if (step.all_scores || ctx.tape || ctx.probe || step.indexer_kl_scale != 0) return true;
  return step.selection == KeySelection::kSparse && longest_row(step.seqs) > lc.config.index_topk;
}

// The linear maps of the block's input and of the query's latent, those of the indexer beside the
// others. It learns from its KL alone: its inputs are detached (model spec 6.2).
struct InputMaps {
  Value q, kv, index_k, index_w;
};

InputMaps maps_of_input(Ctx& ctx, const LayerContext& lc, const AttentionWeights& w,
                        const Value& x_TD, const Step& step) {
  const Weight &w_q = lc.config.q_lora_rank > 0 ? w.q_a_proj : w.q_proj,
               &w_kv = w.kv_a_proj_with_mqa;
  if (!runs_indexer(ctx, w, step)) {
    const auto [q, kv] = projects(ctx, lc, x_TD, step, w_q, w_kv);
    return {q, kv, {}, {}};
  }
  const IndexerWeights& ix = *w.indexer;
  if (!needs_scores(ctx, lc, step)) {
    const auto [q, kv, index_k] = projects(ctx, lc, x_TD, step, w_q, w_kv, ix.wk);
    return {q, kv, index_k, {}};
  }
  if (!ctx.tape && step.numerics == Numerics::kExact) {
    const auto [q, kv, index_k, index_w] = linears(ctx, x_TD, w_q, w_kv, ix.wk, ix.weights_proj);
    return {q, kv, index_k, index_w};
  }
  const Value alone_TD = detach(x_TD);
  const auto [q, kv] = projects(ctx, lc, x_TD, step, w_q, w_kv);
  return {q, kv, project(ctx, lc, alone_TD, ix.wk, step), linear(ctx, alone_TD, ix.weights_proj)};
}

struct QueryMaps {
  Value q, index_q;
  Value q_lat_THC;  // where its map shared their region
};

// Whether the absorbed maps share a region with those before and behind them. FP8 rounds between.
bool shares_regions(const Ctx& ctx, const Step& step) {
  return ctx.fuses() && step.numerics == Numerics::kExact && step.form == AttnForm::kAbsorbed;
}

QueryMaps maps_of_query(Ctx& ctx, const LayerContext& lc, const AttentionWeights& w,
                        const Value& c_q_TQ, const Step& step) {
  const bool scored = runs_indexer(ctx, w, step) && needs_scores(ctx, lc, step);
  if (shares_regions(ctx, step)) {
    const std::array<const Weight*, 2> maps{&w.q_b_proj, scored ? &w.indexer->wq_b : nullptr};
    std::array<Value, 2> q;
    const size_t size = scored ? 2 : 1;
    const Value q_lat_THC = linears_then_heads(ctx, c_q_TQ, std::span(maps).first(size),
                                               std::span(q).first(size), w.w_uk, w.uk_form);
    return {q[0], q[1], q_lat_THC};
  }
  if (!scored) return {project(ctx, lc, c_q_TQ, w.q_b_proj, step), {}, {}};
  if (ctx.tape)
    return {project(ctx, lc, c_q_TQ, w.q_b_proj, step),
            project(ctx, lc, detach(c_q_TQ), w.indexer->wq_b, step),
            {}};
  const auto [q, index_q] = projects(ctx, lc, c_q_TQ, step, w.q_b_proj, w.indexer->wq_b);
  return {q, index_q, {}};
}

// Rotation and, in FP8, rounding of the indexer's queries or keys. Here the rotary part comes
// first, and its pairing is a field of the configuration.
Value indexer_rotate(Ctx& ctx, const LayerContext& lc, const Value& x_THI, const Step& step) {
  const ModelConfig& c = lc.config;
  const int64_t T = x_THI->dim[0], H = x_THI->dim[1], I = c.index_head_dim, R = c.qk_rope_head_dim;
  const RopePairs pairs = c.indexer_rope_interleave ? RopePairs::kInterleaved : RopePairs::kHalves;
  const auto [pe_THR, rest] = split_last(x_THI, R, I - R);
  const Value pe = rope_over(ctx, pe_THR, step.pos.data(), lc.indexer_rope, pairs);
  const Value rotated_THI = I == R ? pe : concat_last(ctx, pe, rest);
  if (step.numerics == Numerics::kExact) return rotated_THI;
  const Value rows = hadamard(ctx, bf16_round(ctx, reshape(rotated_THI, {T * H, I})));
  return reshape(fp8_round(ctx, bf16_round(ctx, rows), ScaleFormat::kUe8m0), {T, H, I});
}

// Queries, if there are any, and keys of the indexer.
IndexerOut indexer_project(Ctx& ctx, const LayerContext& lc, const IndexerWeights& w, int64_t layer,
                           const InputMaps& in, const Value& index_q, const Step& step) {
  const int64_t J = lc.config.index_n_heads, I = lc.config.index_head_dim;
  IndexerOut o;
  const Value k_TI = layer_norm(ctx, in.index_k, w.k_norm, w.k_norm_bias, kIndexerNormEps);
  o.k_TI = reshape(indexer_rotate(ctx, lc, split_dim(k_TI, 1, I), step), {step.num_rows(), I});
  if (!index_q) return o;
  o.q_TJI = indexer_rotate(ctx, lc, split_dim(index_q, J, I), step);
  const Value w_TJ = scale(ctx, in.index_w, 1 / std::sqrt(static_cast<double>(J)));
  probe(ctx, "attn.{}.indexer_head_weights", layer, w_TJ);
  o.w_TJ = scale(ctx, w_TJ, 1 / std::sqrt(static_cast<double>(I)));
  return o;
}

// Selects, dumps the scores, and leaves q, w, k for the KL loss.
IndexerOut run_indexer(Ctx& ctx, const LayerContext& lc, const IndexerWeights& w, int64_t layer,
                       const InputMaps& in, const Value& index_q, const Step& step,
                       Tensor* sel_TK) {
  const bool sparse = step.selection == KeySelection::kSparse;
  const IndexerOut ix = indexer_project(ctx, lc, w, layer, in, index_q, step);
  const PageTable keys =
      step.cache ? step.cache.append(ctx, KvCache::Kind::kIndex, layer, ix.k_TI, step.seqs)
                 : pages_of_rows(ix.k_TI, step.seqs);
  if (sparse || ctx.probe)
    *sel_TK = ix.q_TJI ? index_select(ctx, ix.q_TJI, ix.w_TJ, keys, step.seqs, lc.config.index_topk)
                       : select_all(ctx, step.seqs, lc.config.index_topk);
  if (ctx.probe) {
    const Tensor scores_TS = ctx.scratch(ctx.real, {step.num_rows(), longest_row(step.seqs)});
    ctx.kernels.index_scores(ctx.exec(), {.q = ix.q_TJI,
                                          .w = ix.w_TJ,
                                          .rows = step.seqs.ref(),
                                          .keys = keys.ref(),
                                          .scores = scores_TS});
    probe(ctx, "attn.{}.indexer_scores", layer, scores_TS);
    probe(ctx, "attn.{}.selected", layer, *sel_TK);
  }
  return ix;
}

}  // namespace

LayerContext make_layer_context(const ModelConfig& config) {
  // Powers cost as much as a small kernel, and every step has the same.
  struct Last {
    double theta = 0;
    int64_t width = 0;
    std::optional<RopeScaling> scaling;
    std::vector<double> frequencies;
  };
  thread_local Last last;
  if (last.theta != config.rope_theta || last.width != config.qk_rope_head_dim ||
      last.scaling != config.rope_scaling)
    last = {config.rope_theta, config.qk_rope_head_dim, config.rope_scaling,
            rope_frequencies(config)};
  const std::vector<double>& f = last.frequencies;
  return {config, {f, config.rope_amplitude()}, {f, 1.0}};
}

Value project(Ctx& ctx, const LayerContext& lc, const Value& x_TD, const Weight& w,
              const Step& step) {
  if (step.numerics == Numerics::kExact || w.raw().view.dtype != DType::kE4M3)
    return linear(ctx, x_TD, w);
  const bool ue8m0 = lc.config.quantization_config && lc.config.quantization_config->scale_ue8m0;
  return linear(ctx, fp8_round(ctx, x_TD, ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kF32), w);
}

Value attention_block(Ctx& ctx, const LayerContext& lc, const AttentionWeights& w, int64_t layer,
                      const Value& x_TD, const Step& step, Tensor* sel_TK, LayerOut* out) {
  const ModelConfig& c = lc.config;
  const int64_t H = c.num_attention_heads, N = c.qk_nope_head_dim, R = c.qk_rope_head_dim,
                V = c.v_head_dim;
  const int64_t C = c.kv_lora_rank;
  const RopePairs pairs = c.rope_interleave ? RopePairs::kInterleaved : RopePairs::kHalves;

  const InputMaps maps = maps_of_input(ctx, lc, w, x_TD, step);
  QueryMaps query{maps.q, {}, {}};
  if (c.q_lora_rank > 0)
    query = maps_of_query(ctx, lc, w, rms_norm_over(ctx, maps.q, w.q_a_layernorm, c.rms_norm_eps),
                          step);
  const auto [q_nope_THN, q_raw_THR] = split_last(split_dim(query.q, H, N + R), N, R);
  const Value q_pe_THR = rope_over(ctx, q_raw_THR, step.pos.data(), lc.rope, pairs);

  const auto [c_raw_TC, k_raw_TR] = split_last(maps.kv, C, R);
  Value c_kv_TC = rms_norm_over(ctx, c_raw_TC, w.kv_a_layernorm, c.rms_norm_eps);
  if (step.numerics == Numerics::kFp8Cache)
    c_kv_TC = bf16_round(ctx, fp8_round(ctx, bf16_round(ctx, c_kv_TC), ScaleFormat::kUe8m0));
  const Value k_pe_TR =
      merge_dims(rope_over(ctx, split_dim(k_raw_TR, 1, R), step.pos.data(), lc.rope, pairs));

  IndexerOut ix;
  if (runs_indexer(ctx, w, step))
    ix = run_indexer(ctx, lc, *w.indexer, layer, maps, query.index_q, step, sel_TK);
  else if (c.has_dsa() && *sel_TK)
    probe(ctx, "attn.{}.selected", layer, *sel_TK);
  const Tensor sel = step.selection == KeySelection::kSparse ? *sel_TK : Tensor();
  out->sel_TK = sel;

  // The KL's target is the attention in absorbed form, whatever form the layer itself runs in.
  const bool with_kl = ix.q_TJI && (step.indexer_kl_scale != 0 || ctx.probe) && !step.cache;
  const bool absorbed = step.form == AttnForm::kAbsorbed;
  Value q_lat_THC = query.q_lat_THC, kv_TX;
  if (absorbed || with_kl) {
    const bool learns = absorbed;  // else the latent query serves the detached target only
    if (!q_lat_THC)
      q_lat_THC = head_linear(ctx, learns ? q_nope_THN : detach(q_nope_THN), w.w_uk, w.uk_form);
    kv_TX =
        concat_last(ctx, learns ? c_kv_TC : detach(c_kv_TC), learns ? k_pe_TR : detach(k_pe_TR));
  }

  AttentionOut attn;
  Value o_THV;
  if (absorbed) {
    const PageTable keys =
        step.cache ? step.cache.append(ctx, KvCache::Kind::kLatent, layer, kv_TX, step.seqs)
                   : pages_of_rows(kv_TX, step.seqs);
    attn = attention(ctx, q_lat_THC, q_pe_THR, kv_TX, keys, step.seqs, sel, c.softmax_scale());
    if (shares_regions(ctx, step) && !with_kl)
      return heads_then_linear(ctx, attn.o, w.w_uv, HeadForm::kTransposed, w.o_proj);
    o_THV = head_linear(ctx, attn.o, w.w_uv, HeadForm::kTransposed);
  } else {
    FM_CHECK(!step.cache, "the naive form works without a cache");
    const Value kv_THZ = split_dim(project(ctx, lc, c_kv_TC, w.kv_b_proj, step), H, N + V);
    const auto [k_nope_THN, v_THV] = split_last(kv_THZ, N, V);
    attn = attention_mha(ctx, q_nope_THN, q_pe_THR, k_nope_THN, k_pe_TR, v_THV, step.seqs, sel,
                         c.softmax_scale());
    o_THV = attn.o;
  }
  if (with_kl) {
    const IndexKlInputs in{.q_TJI = ix.q_TJI,
                           .w_TJ = ix.w_TJ,
                           .k_TI = ix.k_TI,
                           .q_lat_THC = q_lat_THC,
                           .q_pe_THR = q_pe_THR,
                           .kv_TX = kv_TX,
                           .lse_TH = attn.lse,
                           .attn_scale = c.softmax_scale()};
    const IndexKlOut kl =
        index_kl(ctx, in, step.seqs, sel, step.indexer_kl_scale, step.indexer_mass_topk);
    out->kl_T = kl.kl_T;
    out->mass_T = kl.mass_T;
    probe(ctx, "attn.{}.kl_rows", layer, kl.kl_T);
  }
  const Value u_TD = project(ctx, lc, merge_dims(o_THV), w.o_proj, step);
  probe(ctx, "attn.{}.out", layer, u_TD);
  return u_TD;
}

}  // namespace fathom
