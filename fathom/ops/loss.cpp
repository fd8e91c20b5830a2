// The head and its cross entropy, chunk by chunk: logits live for one chunk of rows only.
#include "fathom/ops/loss.h"

#include <algorithm>

#include "fathom/tensor/dims.h"

namespace fathom {
namespace {

constexpr int64_t kChunkRows = 256;

// What all chunks share. The gradients of the head add up over chunks in ascending order.
struct HeadPass {
  Ctx& ctx;
  const Value& h;
  const Weight& head;
  const int32_t* target;
  const double* weight;
  Tensor logits, nll;  // [chunk, W], [chunk]
  GradSink dh, dhead;
};

bool any_target(const HeadPass& p, int64_t begin, int64_t size) {
  return std::any_of(p.target + begin, p.target + begin + size, [](int32_t t) { return t >= 0; });
}

void run_chunk(HeadPass& p, int64_t begin, int64_t size) {
  const Kernels& k = p.ctx.kernels;
  const Exec exec = p.ctx.exec();
  const View h = slice(p.h, 0, begin, size);
  const View logits = slice(p.logits, 0, 0, size);
  k.linear(exec, {.x = h, .w = p.head.ref(), .y = logits});
  k.cross_entropy(exec, {.logits = logits,
                         .target = p.target + begin,
                         .nll = slice(p.nll, 0, 0, size),
                         .weight = p.weight + begin,
                         .dlogits = p.dh || p.dhead ? logits : View()});
  if (p.dh)
    k.linear_dx(
        exec,
        {.dy = logits, .w = p.head.ref(), .dx = slice(p.dh.view, 0, begin, size), .add = p.dh.add});
  if (p.dhead) {
    k.linear_dw(exec, {.dy = logits, .x = h, .dw = p.dhead.view, .add = p.dhead.add});
    p.dhead.add = true;
  }
}

}  // namespace

HeadLoss head_loss(Ctx& ctx, const Value& h_TD, const Weight& head,
                   const std::vector<int32_t>& target, const std::vector<double>& weight) {
  Dims d("head_loss");
  FM_DIMS(d, h_TD);
  const int64_t T = d['T'], W = head.out();
  FM_CHECK(static_cast<int64_t>(target.size()) == T && static_cast<int64_t>(weight.size()) == T,
           "head_loss: {} rows, {} targets, {} weights", T, target.size(), weight.size());
  for (const int32_t t : target) FM_CHECK(t < W, "head_loss: target {} of {}", t, W);
  HeadLoss out{.nll = std::vector<double>(static_cast<size_t>(T))};
  const int64_t chunk = std::min(T, kChunkRows);
  HeadPass p{ctx,
             h_TD,
             head,
             target.data(),
             weight.data(),
             ctx.scratch(ctx.real, {chunk, W}),
             ctx.scratch(ctx.real, {chunk}),
             {},
             {}};
  if (ctx.tape) {
    p.dh = h_TD.grad_sink(ctx.arena);
    p.dhead = head.value().grad_sink(ctx.arena);
  }
  for (int64_t begin = 0; begin < T; begin += chunk) {
    const int64_t size = std::min(chunk, T - begin);
    if (!any_target(p, begin, size)) {
      if (p.dh && !p.dh.add) fill_zero(slice(p.dh.view, 0, begin, size));
      continue;
    }
    run_chunk(p, begin, size);
    for (int64_t i = 0; i < size; ++i) {
      const size_t t = static_cast<size_t>(begin + i);
      if (target[t] < 0) continue;
      out.nll[t] = get_element(p.nll, i);
      out.loss += weight[t] * out.nll[t];
    }
  }
  if (p.dhead && !p.dhead.add) fill_zero(p.dhead.view);
  return out;
}

}  // namespace fathom
