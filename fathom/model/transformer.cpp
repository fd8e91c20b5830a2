#include "fathom/model/transformer.h"

#include "fathom/model/ffn_block.h"

namespace fathom {
namespace {

// h + attention(norm(h)), then the same with the feed-forward network. `h` comes with the norm that
// this block reads, and leaves with the one of `next_norm`.
Normed block(Ctx& ctx, const LayerContext& lc, const BlockWeights& w, int64_t layer,
             const Normed& h, const Value& next_norm, const Step& step, Tensor* sel_TK,
             LayerOut* out) {
  const double eps = lc.config.rms_norm_eps;
  const Value u_TD = attention_block(ctx, lc, w.attention, layer, h.x_TD, step, sel_TK, out);
  const Normed mid = add_norm(ctx, h.sum_TD, u_TD, w.post_attention_layernorm, eps);
  const Value y_TD = ffn_block(ctx, lc, w, layer, mid.x_TD, step, out);
  return add_norm(ctx, mid.sum_TD, y_TD, next_norm, eps);
}

}  // namespace

StepOut forward(Ctx& ctx, const Model& model, const Step& step) {
  const ModelConfig& c = model.config;
  FM_CHECK(step.selection == KeySelection::kDense || c.has_dsa(),
           "{}: sparse selection without an indexer", c.model_type);
  const LayerContext lc = make_layer_context(c);
  StepOut out;
  out.layers.reserve(static_cast<size_t>(c.num_layers()));
  const std::vector<BlockWeights>& layers = model.weights.layers;
  const auto input_norm = [&](int64_t l) -> const Value& {
    return l < c.num_hidden_layers ? layers[static_cast<size_t>(l)].input_layernorm
                                   : model.weights.norm;
  };
  const Value e_TD = embedding(ctx, step.token.data(), step.num_rows(), model.weights.embed_tokens);
  Normed h{e_TD, rms_norm(ctx, e_TD, input_norm(0), c.rms_norm_eps)};
  probe(ctx, "hidden.0", h.sum_TD);
  Tensor sel_TK;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    h = block(ctx, lc, layers[static_cast<size_t>(l)], l, h, input_norm(l + 1), step, &sel_TK,
              &out.layers.emplace_back());
    probe(ctx, "hidden.{}", l + 1, h.sum_TD);
  }
  out.hidden_TD = h.x_TD;
  probe(ctx, "hidden.norm", out.hidden_TD);
  return out;
}

Value mtp_forward(Ctx& ctx, const Model& model, int64_t depth, const Value& hidden_TD,
                  const Step& step, std::vector<LayerOut>* layers) {
  const ModelConfig& c = model.config;
  const MtpWeights& w = model.weights.mtp[static_cast<size_t>(depth)];
  const LayerContext lc = make_layer_context(c);
  const Value e_TD = embedding(ctx, step.token.data(), step.num_rows(), model.weights.embed_tokens);
  // Embedding half first, contrary to the paper's equation (model spec 3.7).
  const Value joined = concat_last(ctx, rms_norm(ctx, e_TD, w.enorm, c.rms_norm_eps),
                                   rms_norm(ctx, hidden_TD, w.hnorm, c.rms_norm_eps));
  const Value m_TD = linear(ctx, joined, w.eh_proj);
  probe(ctx, "mtp.input", m_TD);
  Tensor sel_TK;
  const Normed h = block(ctx, lc, w.block, c.num_hidden_layers + depth,
                         {m_TD, rms_norm(ctx, m_TD, w.block.input_layernorm, c.rms_norm_eps)},
                         w.shared_head_norm, step, &sel_TK, &layers->emplace_back());
  probe(ctx, "mtp.hidden", h.sum_TD);
  return h.x_TD;
}

Value logits(Ctx& ctx, const Model& model, const Value& hidden_TD) {
  const Value logits_TW = linear(ctx, hidden_TD, model.weights.lm_head);
  probe(ctx, "logits", logits_TW);
  return logits_TW;
}

}  // namespace fathom
