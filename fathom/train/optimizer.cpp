#include "fathom/train/optimizer.h"

#include <cmath>
#include <iterator>

#include "fathom/base/thread_pool.h"

namespace fathom {
namespace {

View flat(const View& v) { return reshape(v, {v.numel()}); }

View rows_of(const View& v) { return v.rank == 2 ? v : reshape(v, {1, v.numel()}); }

Tensor zeros_like(const Ctx& ctx, const View& v) {
  Tensor t = zeros(ctx.arena, v.dtype, {v.numel()});
  return v.rank == 2 ? Tensor(reshape(t.view, {v.dim[0], v.dim[1]}), t.owner) : t;
}

}  // namespace

Optimizer::Optimizer(const Ctx& ctx, const std::vector<Param>& params,
                     const OptimizerOptions& options)
    : options_(options) {
  for (const Param& p : params) {
    Slot s{p, zeros_like(ctx, p.value), zeros_like(ctx, p.value), {}};
    if (options_.ema_decay > 0) {
      s.ema = zeros_like(ctx, p.value);
      copy(p.value, s.ema);
    }
    slots_.push_back(std::move(s));
  }
}

// Most parameters are small, so threads take whole parameters: one fork-join instead of hundreds.
double Optimizer::grad_norm(const Ctx& ctx) const {
  std::vector<double> sum(slots_.size());
  ctx.pool.parallel_for(std::ssize(slots_), 1, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Value& w = slots_[i].param.value;
      if (w.needs_grad() && w.has_grad())
        ctx.kernels.sum_squares(ctx.exec(), {.x = flat(w.grad()), .sum = &sum[i]});
    }
  });
  double total = 0;
  for (const double s : sum) total += s;
  return std::sqrt(total);
}

void Optimizer::step(const Ctx& ctx, double learning_rate, double norm) {
  ++num_steps_;
  constexpr double kClipEps = 1e-6;
  const double factor =
      options_.clip_norm > 0 ? std::min(1.0, options_.clip_norm / (norm + kClipEps)) : 1.0;
  ctx.pool.parallel_for(std::ssize(slots_), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      update(ctx, slots_[static_cast<size_t>(i)], learning_rate, factor);
  });
}

void Optimizer::update(const Ctx& ctx, const Slot& s, double learning_rate, double factor) const {
  const Value& w = s.param.value;
  if (!w.needs_grad()) return;
  const GradSink sink = w.grad_sink(ctx.arena);
  if (!sink.add) fill_zero(sink.view);  // nothing was written
  ctx.kernels.adamw(ctx.exec(), {.w = flat(w),
                                 .m = flat(s.m),
                                 .v = flat(s.v),
                                 .dw = flat(sink.view),
                                 .lr = learning_rate,
                                 .beta1 = options_.beta1,
                                 .beta2 = options_.beta2,
                                 .eps = options_.eps,
                                 .weight_decay = w->rank == 2 ? options_.weight_decay : 0.0,
                                 .step = num_steps_,
                                 .grad_scale = factor});
  w.node()->grad_written = false;
  if (!s.ema) return;
  const View ema = rows_of(s.ema);
  ctx.kernels.accumulate(ctx.exec(),
                         {.x = ema, .y = ema, .scale = options_.ema_decay, .add = false});
  ctx.kernels.accumulate(ctx.exec(),
                         {.x = rows_of(w), .y = ema, .scale = 1 - options_.ema_decay, .add = true});
}

std::vector<Param> Optimizer::state() const {
  std::vector<Param> out;
  for (const Slot& s : slots_) {
    out.push_back({"m." + s.param.name, constant(s.m)});
    out.push_back({"v." + s.param.name, constant(s.v)});
    if (s.ema) out.push_back({"ema." + s.param.name, constant(s.ema)});
  }
  return out;
}

void update_correction_bias(const View& bias_E, const std::vector<int64_t>& count, double speed) {
  double mean = 0;
  for (const int64_t c : count) mean += static_cast<double>(c) / static_cast<double>(count.size());
  const auto move = [&]<class R>(R* b) {
    for (size_t e = 0; e < count.size(); ++e) {
      const double gap = mean - static_cast<double>(count[e]);
      b[e] = static_cast<R>(static_cast<double>(b[e]) + speed * ((gap > 0) - (gap < 0)));
    }
  };
  if (bias_E.dtype == DType::kF64)
    move(bias_E.as<double>());
  else
    move(bias_E.as<float>());
}

}  // namespace fathom
