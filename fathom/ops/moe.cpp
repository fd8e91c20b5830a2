// Routing, experts and the balance loss.
#include "fathom/ops/moe.h"

#include <algorithm>
#include <numeric>

#include "fathom/ops/result_block.h"
#include "fathom/tensor/dims.h"

namespace fathom {
namespace {

// offset, token, pair and slot from the chosen experts: a counting sort by expert, tokens ascending
// inside.
void sort_by_expert(int64_t num_experts, Routing& r) {
  const int64_t T = r.experts_TA.view.dim[0], A = r.experts_TA.view.dim[1], P = T * A;
  const auto E = static_cast<size_t>(num_experts), N = static_cast<size_t>(P);
  const int32_t* expert = r.experts_TA.as<int32_t>();
  const std::span<int32_t> all(r.lists.as<int32_t>(), E + 1 + 3 * N);
  const auto offset = all.first(E + 1), token = all.subspan(E + 1, N),
             pair = all.subspan(E + 1 + N, N), slot = all.last(N);
  std::fill(offset.begin(), offset.end(), 0);
  for (int64_t i = 0; i < P; ++i) {
    FM_CHECK(expert[i] >= 0 && expert[i] < num_experts, "expert {} of {}", expert[i], num_experts);
    ++offset[static_cast<size_t>(expert[i])];
  }
  std::inclusive_scan(offset.begin(), offset.end(), offset.begin());
  for (size_t i = N; i-- > 0;) {  // from the ends of the experts' slots to their beginnings
    const int32_t to = --offset[static_cast<size_t>(expert[i])];
    token[static_cast<size_t>(to)] = static_cast<int32_t>(i) / static_cast<int32_t>(A);
    pair[static_cast<size_t>(to)] = static_cast<int32_t>(i);
    slot[i] = to;
  }
  r.offset = offset, r.token = token, r.pair = pair, r.slot = slot;
}

std::vector<WeightRef> refs(const std::vector<Weight>& weights) {
  std::vector<WeightRef> out;
  out.reserve(weights.size());
  for (const Weight& w : weights) out.push_back(w.ref());
  return out;
}

bool trainable(const std::vector<Weight>& weights) { return weights.front().value().needs_grad(); }

// What the adjoint of `experts` needs of its forward pass.
struct ExpertsPass {
  const Kernels* k;
  Exec exec;
  DType real;
  std::shared_ptr<const Routing> routing;
  Value x_TD, y_TD;
  Tensor gate_PF, up_PF;

  int64_t num_experts() const { return static_cast<int64_t>(routing->offset.size()) - 1; }
  int64_t num_slots() const { return static_cast<int64_t>(routing->token.size()); }
  Tensor scratch(int64_t columns) const { return empty(*exec.arena, real, {num_slots(), columns}); }

  void forward(const std::vector<Weight>& w, const View& x, const int32_t* rows,
               const View& y) const {
    std::vector<WeightRef> r;  // of the experts with rows: few of many when a token is decoded
    std::vector<int32_t> offset = {0};
    for (size_t e = 0; e < w.size(); ++e) {
      if (routing->offset[e + 1] == routing->offset[e]) continue;
      r.push_back(w[e].ref());
      offset.push_back(routing->offset[e + 1]);
    }
    k->grouped_linear(exec, {.x = x,
                             .rows = rows,
                             .num_groups = std::ssize(r),
                             .offset = offset.data(),
                             .w = r.data(),
                             .y = y});
  }
  void backward_x(const std::vector<Weight>& w, const View& dy, const int32_t* rows, const View& dx,
                  bool add) const {
    const std::vector<WeightRef> r = refs(w);
    k->grouped_linear_dx(exec, {.dy = dy,
                                .rows = rows,
                                .num_groups = num_experts(),
                                .offset = routing->offset.data(),
                                .w = r.data(),
                                .dx = dx,
                                .add = add});
  }
  void backward_w(const std::vector<Weight>& w, const View& dy, const int32_t* dy_rows,
                  const View& x, const int32_t* rows) const {
    if (!trainable(w)) return;
    std::vector<View> dw(w.size());
    const auto add = std::make_unique<bool[]>(w.size());
    for (size_t e = 0; e < w.size(); ++e) {
      const GradSink sink = w[e].value().grad_sink(*exec.arena);
      dw[e] = sink.view;
      add[e] = sink.add;
    }
    k->grouped_linear_dw(exec, {.dy = dy,
                                .dy_rows = dy_rows,
                                .x = x,
                                .rows = rows,
                                .num_groups = num_experts(),
                                .offset = routing->offset.data(),
                                .dw = dw.data(),
                                .add = add.get()});
  }
  void backward(const ExpertWeights& weights) const;
};

void ExpertsPass::backward(const ExpertWeights& weights) const {
  const bool dx_wanted = x_TD.needs_grad(), down = trainable(weights.down_proj);
  const bool gate = dx_wanted || trainable(weights.gate_proj),
             up = dx_wanted || trainable(weights.up_proj);
  const GradSink dweights = routing->weights_TA.grad_sink(*exec.arena);
  if (!gate && !up && !down && !dweights) return;
  const int64_t F = gate_PF.view.dim[1];
  const int32_t* token = routing->token.data();
  const View dy_TD = y_TD.grad();
  const Tensor dh_PF = scratch(F), dgate_PF = gate ? scratch(F) : Tensor(),
               dup_PF = up ? scratch(F) : Tensor(), h_PF = down ? scratch(F) : Tensor();
  backward_x(weights.down_proj, dy_TD, token, dh_PF, false);
  k->expert_bwd(exec, {.gate = gate_PF,
                       .up = up_PF,
                       .dy = dh_PF,
                       .weights = routing->weights_TA,
                       .pair = routing->pair.data(),
                       .dgate = dgate_PF,
                       .dup = dup_PF,
                       .weighted_h = h_PF,
                       .dweights = dweights.view,
                       .add_dweights = dweights.add});
  backward_w(weights.down_proj, dy_TD, token, h_PF, nullptr);
  backward_w(weights.gate_proj, dgate_PF, nullptr, x_TD, token);
  backward_w(weights.up_proj, dup_PF, nullptr, x_TD, token);
  if (!dx_wanted) return;
  const Tensor dx_PD = scratch(x_TD->dim[1]);
  backward_x(weights.gate_proj, dgate_PF, nullptr, dx_PD, false);
  backward_x(weights.up_proj, dup_PF, nullptr, dx_PD, true);
  const GradSink dx = x_TD.grad_sink(*exec.arena);
  k->gather_bwd(exec, {.dxp = dx_PD,
                       .slot = routing->slot.data(),
                       .num_experts_per_tok = routing->weights_TA->dim[1],
                       .dx = dx.view,
                       .add = dx.add});
}

}  // namespace

std::shared_ptr<const Routing> route(Ctx& ctx, const Value& logits_TE, const View& bias_E,
                                     const GateOptions& options, const View& forced_TA) {
  Dims d("route");
  FM_DIMS(d, logits_TE);
  if (bias_E) FM_DIMS(d, bias_E);
  const int64_t T = d['T'], E = d['E'], A = options.num_experts_per_tok;
  auto r = std::make_shared<Routing>();
  const int64_t num_listed = E + 1 + 3 * T * A;
  int64_t size_bytes =
      ResultBlock::bytes(DType::kI32, T * A) + ResultBlock::bytes(DType::kI32, num_listed);
  if (!ctx.tape)
    size_bytes += ResultBlock::bytes(ctx.real, T * E) + ResultBlock::bytes(ctx.real, T * A);
  ResultBlock block(ctx, size_bytes);
  r->experts_TA = block.tensor(DType::kI32, {T, A});
  r->lists = block.tensor(DType::kI32, {num_listed});
  r->scores_TE = ctx.tape ? ctx.make({T, E}, {&logits_TE}) : block.value(ctx.real, {T, E});
  r->weights_TA = ctx.tape ? ctx.make({T, A}, {&logits_TE}) : block.value(ctx.real, {T, A});
  Gate gate{.logits = logits_TE,
            .bias = bias_E,
            .scoring = options.scoring,
            .method = options.method,
            .n_group = options.n_group,
            .topk_group = options.topk_group,
            .norm_topk_prob = options.norm_topk_prob,
            .routed_scaling_factor = options.routed_scaling_factor,
            .scores = r->scores_TE,
            .experts = r->experts_TA,
            .weights = r->weights_TA};
  if (forced_TA) {
    r->own_TA = ctx.scratch(DType::kI32, {T, A});
    gate.experts = r->own_TA;
    ctx.kernels.gate(ctx.exec(), gate);
    copy(forced_TA, r->experts_TA);
    gate.experts = r->experts_TA;
    gate.forced = true;
  }
  ctx.kernels.gate(ctx.exec(), gate);
  sort_by_expert(E, *r);
  if (!ctx.tape || !r->weights_TA.needs_grad()) return r;
  ctx.tape->record([k = &ctx.kernels, exec = ctx.exec(), r, logits_TE, options] {
    const bool from_weights = r->weights_TA.has_grad(), from_scores = r->scores_TE.has_grad();
    if (!from_weights && !from_scores) return;
    const GradSink dlogits = logits_TE.grad_sink(*exec.arena);
    k->gate_bwd(exec, {.scores = r->scores_TE,
                       .experts = r->experts_TA,
                       .weights = r->weights_TA,
                       .dweights = from_weights ? r->weights_TA.grad() : View(),
                       .dscores = from_scores ? r->scores_TE.grad() : View(),
                       .scoring = options.scoring,
                       .norm_topk_prob = options.norm_topk_prob,
                       .routed_scaling_factor = options.routed_scaling_factor,
                       .dlogits = dlogits.view,
                       .add = dlogits.add});
  });
  return r;
}

namespace {

// Expert by expert, as they come to memory. Rows do not depend on each other, so the bits are those
// of the grouped products.
Value streamed_experts(Ctx& ctx, const Value& x_TD, const Routing& routing,
                       const ExpertWeights& weights) {
  FM_CHECK(!ctx.tape, "experts that are streamed cannot be trained");
  const auto P = static_cast<int64_t>(routing.token.size());
  Value y_TD = ctx.make_like(x_TD, {});
  const Tensor y_PD = ctx.scratch(ctx.real, {P, x_TD->dim[1]});
  for_each_expert(weights, routing, [&](const ExpertRef& e) {
    const int32_t begin = routing.offset[static_cast<size_t>(e.expert)];
    const int64_t M = routing.offset[static_cast<size_t>(e.expert) + 1] - begin;
    const int32_t* token = routing.token.data() + begin;
    const Tensor gate_MF = ctx.scratch(ctx.real, {M, e.gate_proj.out()});
    const Tensor up_MF = ctx.scratch(ctx.real, {M, e.up_proj.out()});
    const Tensor h_MF = ctx.scratch(ctx.real, {M, e.up_proj.out()});
    const Kernels& k = ctx.kernels;
    k.linear(ctx.exec(), {.x = x_TD, .rows = token, .w = e.gate_proj.ref(), .y = gate_MF});
    k.linear(ctx.exec(), {.x = x_TD, .rows = token, .w = e.up_proj.ref(), .y = up_MF});
    k.swiglu(ctx.exec(), {.gate = gate_MF, .up = up_MF, .y = h_MF});
    k.linear(ctx.exec(), {.x = h_MF, .w = e.down_proj.ref(), .y = slice(y_PD.view, 0, begin, M)});
  });
  ctx.kernels.combine(
      ctx.exec(),
      {.x = y_PD, .slot = routing.slot.data(), .weights = routing.weights_TA, .y = y_TD});
  return y_TD;
}

}  // namespace

Value experts(Ctx& ctx, const Value& x_TD, const std::shared_ptr<const Routing>& routing,
              const ExpertWeights& weights) {
  if (weights.stream) return streamed_experts(ctx, x_TD, *routing, weights);
  const std::vector<Weight>&w_gate = weights.gate_proj, &w_up = weights.up_proj,
        &w_down = weights.down_proj;
  FM_CHECK(!w_gate.empty() && w_gate.size() + 1 == routing->offset.size() &&
               w_up.size() == w_gate.size() && w_down.size() == w_gate.size(),
           "experts: {} gate, {} up, {} down weights, routing over {}", w_gate.size(), w_up.size(),
           w_down.size(), routing->offset.size() - 1);
  const int64_t D = w_down[0].out(), F = w_gate[0].out();
  const int32_t* token = routing->token.data();
  Value y_TD = ctx.make({x_TD->dim[0], D}, {&x_TD, &routing->weights_TA, &w_gate[0].value(),
                                            &w_up[0].value(), &w_down[0].value()});
  ExpertsPass p{&ctx.kernels, ctx.exec(), ctx.real, routing, x_TD, y_TD, {}, {}};
  p.gate_PF = p.scratch(F);
  p.up_PF = p.scratch(F);
  p.forward(w_gate, x_TD, token, p.gate_PF);
  p.forward(w_up, x_TD, token, p.up_PF);
  const Tensor h_PF = p.scratch(F), y_PD = p.scratch(D);
  ctx.kernels.swiglu(ctx.exec(), {.gate = p.gate_PF, .up = p.up_PF, .y = h_PF});
  p.forward(w_down, h_PF, nullptr, y_PD);
  ctx.kernels.combine(
      ctx.exec(),
      {.x = y_PD, .slot = routing->slot.data(), .weights = routing->weights_TA, .y = y_TD});
  if (!ctx.tape) return y_TD;
  ctx.on_backward(y_TD, [p = std::move(p), weights] { p.backward(weights); });
  return y_TD;
}

Value experts_forward(Ctx& ctx, const Value& x_TD, const Routing& routing,
                      const ExpertWeights& weights, const SharedExpert* shared) {
  FM_CHECK(!ctx.tape && !weights.stream, "experts_forward: nothing is recorded or fetched");
  const int64_t T = x_TD->dim[0], D = x_TD->dim[1], P = std::ssize(routing.token);
  const int64_t F = weights.gate_proj[0].out(), S = shared ? shared->gate_proj.out() : 0;
  // P rows of F numbers, then T rows of S: for SwiGLU they are rows of what divides both.
  const int64_t num_hidden = P * F + T * S, width = std::gcd(F, S);
  ResultBlock block(
      ctx, 2 * ResultBlock::bytes(ctx.real, num_hidden) + ResultBlock::bytes(ctx.real, P * D));
  const Tensor gate = block.tensor(ctx.real, {num_hidden / width, width}),
               up = block.tensor(ctx.real, {num_hidden / width, width}),
               y_PD = block.tensor(ctx.real, {P, D});
  const auto routed = [&](const Tensor& t, int64_t begin, int64_t rows) {
    return make_view(t.view.at_element(begin * F), ctx.real, {rows, F});
  };
  const auto common = [&](const Tensor& t) {
    return make_view(t.view.at_element(P * F), ctx.real, {T, S});
  };
  thread_local std::vector<Linear> in, out;
  in.clear();
  out.clear();
  const auto product = [](std::vector<Linear>& list, const View& x, const int32_t* rows,
                          const Weight& w, const View& y) {
    Linear& p = list.emplace_back();
    p.x = x, p.rows = rows, p.w = w.ref(), p.y = y;
  };
  for (size_t e = 0; e + 1 < routing.offset.size(); ++e) {
    const int64_t begin = routing.offset[e], rows = routing.offset[e + 1] - begin;
    if (rows == 0) continue;
    const int32_t* token = routing.token.data() + begin;
    product(in, x_TD, token, weights.gate_proj[e], routed(gate, begin, rows));
    product(in, x_TD, token, weights.up_proj[e], routed(up, begin, rows));
    product(out, routed(gate, begin, rows), nullptr, weights.down_proj[e],
            slice(y_PD.view, 0, begin, rows));
  }
  Value y_TD = ctx.make({T, D}, {});
  if (shared) {
    product(in, x_TD, nullptr, shared->gate_proj, common(gate));
    product(in, x_TD, nullptr, shared->up_proj, common(up));
    product(out, common(gate), nullptr, shared->down_proj, y_TD);
  }
  ctx.kernels.linears(ctx.exec(), in.data(), std::ssize(in));
  ctx.kernels.swiglu(ctx.exec(), {.gate = gate, .up = up, .y = gate});
  ctx.kernels.linears(ctx.exec(), out.data(), std::ssize(out));
  ctx.kernels.combine(ctx.exec(), {.x = y_PD,
                                   .slot = routing.slot.data(),
                                   .weights = routing.weights_TA,
                                   .y = y_TD,
                                   .add = shared != nullptr});
  return y_TD;
}

double balance_loss(Ctx& ctx, const std::shared_ptr<const Routing>& routing,
                    const std::vector<int32_t>& first_row, int64_t num_experts_per_tok,
                    double weight) {
  FM_CHECK(!first_row.empty() && first_row.back() == routing->scores_TE->dim[0],
           "balance_loss: {} rows, scores of {}", first_row.empty() ? 0 : first_row.back(),
           routing->scores_TE->dim[0]);
  double loss = 0;
  const GradSink dscores = ctx.tape ? routing->scores_TE.grad_sink(ctx.arena) : GradSink();
  ctx.kernels.balance(ctx.exec(), {.scores = routing->scores_TE,
                                   .num_experts_per_tok = num_experts_per_tok,
                                   .num_seq = static_cast<int64_t>(first_row.size()) - 1,
                                   .first_row = first_row.data(),
                                   .weight = weight,
                                   .loss = &loss,
                                   .dscores = dscores.view,
                                   .add = dscores.add});
  return loss;
}

}  // namespace fathom
