#include "fathom/model/ffn_block.h"

namespace fathom {
namespace {

Value mlp(Ctx& ctx, const LayerContext& lc, const MlpWeights& w, const Value& x_TD,
          const Step& step) {
  const auto [gate_TF, up_TF] = projects(ctx, lc, x_TD, step, w.gate_proj, w.up_proj);
  return project(ctx, lc, swiglu(ctx, gate_TF, up_TF), w.down_proj, step);
}

// The FP8 path rounds between the products of an expert, so here each expert is a small network of
// its own.
Value experts_fp8(Ctx& ctx, const LayerContext& lc, const Value& x_TD, const Routing& r,
                  const ExpertWeights& w, const Step& step) {
  const int64_t T = x_TD->dim[0], D = x_TD->dim[1];
  const auto P = static_cast<int64_t>(r.token.size());
  Value y_PD = ctx.make({P, D}, {});
  for_each_expert(w, r, [&](const ExpertRef& e) {
    const auto index = static_cast<size_t>(e.expert);
    const int64_t begin = r.offset[index], rows = r.offset[index + 1] - begin;
    const Value x_PD = select_rows(ctx, x_TD, r.token.data() + begin, rows);
    const Value y = mlp(ctx, lc, {e.gate_proj, e.up_proj, e.down_proj}, x_PD, step);
    copy(y, slice(y_PD.view(), 0, begin, rows));
  });
  Value y_TD = ctx.make({T, D}, {});
  ctx.kernels.combine(ctx.exec(),
                      {.x = y_PD, .slot = r.slot.data(), .weights = r.weights_TA, .y = y_TD});
  return y_TD;
}

}  // namespace

Value ffn_block(Ctx& ctx, const LayerContext& lc, const BlockWeights& w, int64_t layer,
                const Value& x_TD, const Step& step, LayerOut* out) {
  if (!w.moe) return mlp(ctx, lc, w.mlp, x_TD, step);
  const ModelConfig& c = lc.config;
  const MoeWeights& m = *w.moe;
  const GateOptions options{.scoring = c.scoring_func,
                            .method = c.topk_method,
                            .n_group = c.n_group,
                            .topk_group = c.topk_group,
                            .num_experts_per_tok = c.num_experts_per_tok,
                            .norm_topk_prob = c.norm_topk_prob,
                            .routed_scaling_factor = c.routed_scaling_factor};
  const Value logits_TE = linear(ctx, x_TD, m.gate);
  const auto l = static_cast<size_t>(layer);
  const View forced_TA = l < step.forced_experts.size() ? step.forced_experts[l] : View();
  const auto routing = route(ctx, logits_TE, m.e_score_correction_bias, options, forced_TA);
  probe(ctx, "router.{}.logits", layer, logits_TE);
  probe(ctx, "router.{}.experts", layer, routing->experts_TA);
  probe(ctx, "router.{}.weights", layer, routing->weights_TA);
  out->routing = routing;
  if (step.balance_weight != 0 || ctx.probe)
    out->balance =
        balance_loss(ctx, routing, step.seqs.first_row, c.num_experts_per_tok, step.balance_weight);
  if (step.numerics == Numerics::kExact && ctx.fuses() && !m.experts.stream) {
    const SharedExpert shared{m.shared.gate_proj, m.shared.up_proj, m.shared.down_proj};
    return experts_forward(ctx, x_TD, *routing, m.experts, m.shared.gate_proj ? &shared : nullptr);
  }
  const Value y_TD = step.numerics == Numerics::kExact
                         ? experts(ctx, x_TD, routing, m.experts)
                         : experts_fp8(ctx, lc, x_TD, *routing, m.experts, step);
  return m.shared.gate_proj ? add(ctx, y_TD, mlp(ctx, lc, m.shared, x_TD, step)) : y_TD;
}

}  // namespace fathom
