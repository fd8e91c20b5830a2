#include "fathom/model/transformer.h"

#include "fathom/model/ffn_block.h"

namespace fathom {
namespace {

Value block(Ctx& ctx, const LayerContext& lc, const BlockWeights& w, int64_t layer,
            const Value& h_TD, const Step& step, Tensor* sel_TK, LayerOut* out) {
  const double eps = lc.config.rms_norm_eps;
  const Value u_TD = attention_block(
      ctx, lc, w.attention, layer, rms_norm(ctx, h_TD, w.input_layernorm, eps), step, sel_TK, out);
  const Value mid_TD = add(ctx, h_TD, u_TD);
  const Value y_TD = ffn_block(ctx, lc, w, layer,
                               rms_norm(ctx, mid_TD, w.post_attention_layernorm, eps), step, out);
  return add(ctx, mid_TD, y_TD);
}

}  // namespace

StepOut forward(Ctx& ctx, const Model& model, const Step& step) {
  const ModelConfig& c = model.config;
  FM_CHECK(step.selection == KeySelection::kDense || c.has_dsa(),
           "{}: sparse selection without an indexer", c.model_type);
  const LayerContext lc = make_layer_context(c);
  StepOut out;
  Value h_TD = embedding(ctx, step.token.data(), step.num_rows(), model.weights.embed_tokens);
  probe(ctx, "hidden.0", h_TD);
  Tensor sel_TK;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    h_TD = block(ctx, lc, model.weights.layers[static_cast<size_t>(l)], l, h_TD, step, &sel_TK,
                 &out.layers.emplace_back());
    probe(ctx, "hidden.{}", l + 1, h_TD);
  }
  out.hidden_TD = rms_norm(ctx, h_TD, model.weights.norm, c.rms_norm_eps);
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
  const Value h_TD = block(ctx, lc, w.block, c.num_hidden_layers + depth, m_TD, step, &sel_TK,
                           &layers->emplace_back());
  probe(ctx, "mtp.hidden", h_TD);
  return rms_norm(ctx, h_TD, w.shared_head_norm, c.rms_norm_eps);
}

Value logits(Ctx& ctx, const Model& model, const Value& hidden_TD) {
  const Value logits_TW = linear(ctx, hidden_TD, model.weights.lm_head);
  probe(ctx, "logits", logits_TW);
  return logits_TW;
}

}  // namespace fathom
