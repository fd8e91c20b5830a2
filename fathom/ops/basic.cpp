// Norms, rotation, element-wise ops and row gathers: forward and adjoint side by side.
#include "fathom/ops/basic.h"

#include "fathom/tensor/dims.h"

namespace fathom {
namespace {

// Splits or joins leading dimensions so that any view becomes a list of [rows, last] views; most
// become one.
template <class F>
void for_each_matrix(const View& v, F f, int64_t first_row = 0) {
  if (v.rank == 2) return f(v, first_row);
  if (v.rank == 1) {
    View m = v;
    m.rank = 2;
    m.dim[0] = 1, m.dim[1] = v.dim[0];
    m.stride[0] = v.dim[0], m.stride[1] = 1;
    return f(m, first_row);
  }
  View inner = v;  // the same view without its first dimension
  --inner.rank;
  for (int i = 0; i < inner.rank; ++i)
    inner.dim[i] = v.dim[i + 1], inner.stride[i] = v.stride[i + 1];
  if (v.stride[0] == v.dim[1] * v.stride[1] || v.dim[0] == 1) {
    inner.dim[0] *= v.dim[0];
    return for_each_matrix(inner, f, first_row);
  }
  for (int64_t i = 0; i < v.dim[0]; ++i) {
    inner.data = v.at_element(i * v.stride[0]);
    for_each_matrix(inner, f, first_row + i * inner.rows());
  }
}

// to (+)= from, for equal sizes and any outer strides
void accumulate_any(const Kernels& k, const Exec& exec, const View& from, const View& to,
                    bool add) {
  for_each_matrix(from, [&](const View& x, int64_t x_row) {
    for_each_matrix(to, [&](const View& y, int64_t y_row) {
      const int64_t begin = std::max(x_row, y_row);
      const int64_t end = std::min(x_row + x.dim[0], y_row + y.dim[0]);
      if (begin >= end) return;
      k.accumulate(exec, {.x = slice(x, 0, begin - x_row, end - begin),
                          .y = slice(y, 0, begin - y_row, end - begin),
                          .add = add});
    });
  });
}

// One gradient that two kernels outputs share a flag for: both sinks end up with the same `add`.
void agree(GradSink& a, GradSink& b) {
  if (!a || !b || a.add == b.add) return;
  GradSink& fresh = a.add ? b : a;
  fill_zero(fresh.view);
  fresh.add = true;
}

void check_rows(const char* op, const int32_t* rows, int64_t num_rows, int64_t limit) {
  for (int64_t i = 0; i < num_rows; ++i)
    FM_CHECK(rows[i] >= 0 && rows[i] < limit, "{}: index {} at {}, {} rows", op, rows[i], i, limit);
}

// y[p] = x[rows[p]] with the adjoint of the embedding
Value gather(Ctx& ctx, const Value& x, const int32_t* rows, int64_t num_rows) {
  Value y = ctx.make({num_rows, x->dim[1]}, {&x});
  ctx.kernels.embed(ctx.exec(), {.ids = rows, .table = x, .y = y});
  if (!ctx.tape) return y;
  ctx.on_backward(y, [k = &ctx.kernels, exec = ctx.exec(), x, y, rows] {
    const GradSink dx = x.grad_sink(*exec.arena);
    if (!dx.add) fill_zero(dx.view);
    k->embed_bwd(exec, {.ids = rows, .dy = y.grad(), .dtable = dx.view});
  });
  return y;
}

}  // namespace

Value rms_norm(Ctx& ctx, const Value& x_TD, const Value& g_D, double eps) {
  Dims d("rms_norm");
  FM_DIMS(d, x_TD, g_D);
  Value y_TD = ctx.make_like(x_TD, {&x_TD, &g_D});
  const Tensor inv_rms_T = y_TD.needs_grad() ? ctx.scratch(ctx.real, {d['T']}) : Tensor();
  ctx.kernels.rms_norm(ctx.exec(),
                       {.x = x_TD, .g = g_D, .y = y_TD, .inv_rms = inv_rms_T, .eps = eps});
  if (!ctx.tape) return y_TD;
  ctx.on_backward(y_TD, [k = &ctx.kernels, exec = ctx.exec(), x_TD, g_D, y_TD, inv_rms_T] {
    const GradSink dx = x_TD.grad_sink(*exec.arena), dg = g_D.grad_sink(*exec.arena);
    k->rms_norm_bwd(exec, {.x = x_TD,
                           .g = g_D,
                           .inv_rms = inv_rms_T,
                           .dy = y_TD.grad(),
                           .dx = dx.view,
                           .dg = dg.view,
                           .add_dx = dx.add,
                           .add_dg = dg.add});
  });
  return y_TD;
}

Value layer_norm(Ctx& ctx, const Value& x_TD, const Value& g_D, const Value& b_D, double eps) {
  Dims d("layer_norm");
  FM_DIMS(d, x_TD, g_D, b_D);
  Value y_TD = ctx.make_like(x_TD, {&x_TD, &g_D, &b_D});
  Tensor mean_T, inv_std_T;
  if (y_TD.needs_grad()) {
    mean_T = ctx.scratch(ctx.real, {d['T']});
    inv_std_T = ctx.scratch(ctx.real, {d['T']});
  }
  ctx.kernels.layer_norm(
      ctx.exec(),
      {.x = x_TD, .g = g_D, .b = b_D, .y = y_TD, .mean = mean_T, .inv_std = inv_std_T, .eps = eps});
  if (!ctx.tape) return y_TD;
  ctx.on_backward(y_TD,
                  [k = &ctx.kernels, exec = ctx.exec(), x_TD, g_D, b_D, y_TD, mean_T, inv_std_T] {
                    const GradSink dx = x_TD.grad_sink(*exec.arena),
                                   dg = g_D.grad_sink(*exec.arena), db = b_D.grad_sink(*exec.arena);
                    k->layer_norm_bwd(exec, {.x = x_TD,
                                             .g = g_D,
                                             .mean = mean_T,
                                             .inv_std = inv_std_T,
                                             .dy = y_TD.grad(),
                                             .dx = dx.view,
                                             .dg = dg.view,
                                             .db = db.view,
                                             .add_dx = dx.add,
                                             .add_dg = dg.add,
                                             .add_db = db.add});
                  });
  return y_TD;
}

namespace {

void turn(Ctx& ctx, const View& x_THR, const int32_t* pos, const RopeTable& table, RopePairs pairs,
          const View& y_THR) {
  FM_CHECK(x_THR.rank == 3 && x_THR.last() == 2 * std::ssize(table.inv_freq),
           "rope: {} elements, {} frequencies", x_THR.last(), table.inv_freq.size());
  ctx.kernels.rope(ctx.exec(), {.x = x_THR,
                                .pos = pos,
                                .inv_freq = table.inv_freq.data(),
                                .amplitude = table.amplitude,
                                .pairs = pairs,
                                .y = y_THR});
}

}  // namespace

Value rope(Ctx& ctx, const Value& x_THR, const int32_t* pos, const RopeTable& table,
           RopePairs pairs) {
  Value y_THR = ctx.make_like(x_THR, {&x_THR});
  turn(ctx, x_THR, pos, table, pairs, y_THR);
  if (!ctx.tape) return y_THR;
  ctx.on_backward(y_THR, [k = &ctx.kernels, exec = ctx.exec(), x_THR, y_THR, pos, table, pairs] {
    const GradSink dx = x_THR.grad_sink(*exec.arena);
    k->rope(exec, {.x = y_THR.grad(),
                   .pos = pos,
                   .inv_freq = table.inv_freq.data(),
                   .amplitude = table.amplitude,
                   .pairs = pairs,
                   .inverse = true,
                   .y = dx.view,
                   .add = dx.add});
  });
  return y_THR;
}

Value rms_norm_over(Ctx& ctx, const Value& x_TD, const Value& g_D, double eps) {
  if (!ctx.fuses()) return rms_norm(ctx, x_TD, g_D, eps);
  Dims d("rms_norm_over");
  FM_DIMS(d, x_TD, g_D);
  ctx.kernels.rms_norm(ctx.exec(), {.x = x_TD, .g = g_D, .y = x_TD, .inv_rms = {}, .eps = eps});
  return x_TD;
}

Value rope_over(Ctx& ctx, const Value& x_THR, const int32_t* pos, const RopeTable& table,
                RopePairs pairs) {
  if (!ctx.fuses()) return rope(ctx, x_THR, pos, table, pairs);
  turn(ctx, x_THR, pos, table, pairs, x_THR);
  return x_THR;
}

namespace {

// Where y's gradient is the first to reach x, x shares its memory until one of its owners adds to
// it.
bool share_gradient(const Value& y, const Value& x) {
  const auto whole = [](const Value& v) {
    return v->data == v.node()->data.view.data && v->numel() == v.node()->data.view.numel();
  };
  if (!x.needs_grad() || x.has_grad() || x.node()->grad || !whole(x) || !whole(y)) return false;
  View g = x.node()->data.view;
  g.data = y.grad().data;
  x.node()->grad = Tensor(g, y.node()->grad.owner);
  x.node()->grad_written = x.node()->grad_shared = true;
  return true;
}

}  // namespace

Value add(Ctx& ctx, const Value& a_TD, const Value& b_TD) {
  Dims d("add");
  FM_DIMS(d, a_TD, b_TD);
  Value y_TD = ctx.make_like(a_TD, {&a_TD, &b_TD});
  ctx.kernels.add(ctx.exec(), {.a = a_TD, .b = b_TD, .y = y_TD});
  if (!ctx.tape) return y_TD;
  ctx.on_backward(y_TD, [k = &ctx.kernels, exec = ctx.exec(), a_TD, b_TD, y_TD] {
    for (const Value& x : {b_TD, a_TD}) {
      if (share_gradient(y_TD, x)) continue;
      if (const GradSink dx = x.grad_sink(*exec.arena))
        k->accumulate(exec, {.x = y_TD.grad(), .y = dx.view, .add = dx.add});
    }
  });
  return y_TD;
}

Normed add_norm(Ctx& ctx, const Value& a_TD, const Value& b_TD, const Value& g_D, double eps) {
  if (!ctx.fuses()) {
    const Value sum_TD = add(ctx, a_TD, b_TD);
    return {sum_TD, rms_norm(ctx, sum_TD, g_D, eps)};
  }
  Dims d("add_norm");
  FM_DIMS(d, a_TD, b_TD, g_D);
  Value x_TD = ctx.make_like(a_TD, {});
  ctx.kernels.add_norm(ctx.exec(),
                       {.a = a_TD, .b = b_TD, .g = g_D, .sum = a_TD, .y = x_TD, .eps = eps});
  return {a_TD, x_TD};
}

Value swiglu(Ctx& ctx, const Value& gate_TF, const Value& up_TF) {
  Dims d("swiglu");
  FM_DIMS(d, gate_TF, up_TF);
  Value y_TF = ctx.make_like(gate_TF, {&gate_TF, &up_TF});
  ctx.kernels.swiglu(ctx.exec(), {.gate = gate_TF, .up = up_TF, .y = y_TF});
  if (!ctx.tape) return y_TF;
  ctx.on_backward(y_TF, [k = &ctx.kernels, exec = ctx.exec(), gate_TF, up_TF, y_TF] {
    GradSink dgate = gate_TF.grad_sink(*exec.arena), dup = up_TF.grad_sink(*exec.arena);
    agree(dgate, dup);
    k->swiglu_bwd(exec, {.gate = gate_TF,
                         .up = up_TF,
                         .dy = y_TF.grad(),
                         .dgate = dgate.view,
                         .dup = dup.view,
                         .add = dgate ? dgate.add : dup.add});
  });
  return y_TF;
}

namespace {

// One view of a and b where b goes on at the end of a's rows; else empty.
Value joined(const Value& a, const Value& b) {
  const int axis = a->rank - 1;
  const bool one_owner = !a.node().owner_before(b.node()) && !b.node().owner_before(a.node());
  if (!one_owner || b->data != a->at_element(a->last())) return {};
  for (int i = 0; i < axis; ++i)
    if (a->stride[i] != b->stride[i]) return {};
  View both = a;
  both.dim[axis] += b->last();
  return {both, a.node()};
}

}  // namespace

Value concat_last(Ctx& ctx, const Value& a, const Value& b) {
  const int axis = a->rank - 1;
  FM_CHECK(a->rank == b->rank && (a->rank == 2 || a->rank == 3), "concat_last: ranks {} and {}",
           a->rank, b->rank);
  for (int i = 0; i < axis; ++i)
    FM_CHECK(a->dim[i] == b->dim[i], "concat_last: axis {} is {} and {}", i, a->dim[i], b->dim[i]);
  if (ctx.fuses())
    if (const Value both = joined(a, b)) return both;
  const int64_t last = a->last() + b->last();
  Value y = axis == 1 ? ctx.make({a->dim[0], last}, {&a, &b})
                      : ctx.make({a->dim[0], a->dim[1], last}, {&a, &b});
  const auto [left, right] = split_last(y, a->last(), b->last());
  accumulate_any(ctx.kernels, ctx.exec(), a, left, false);
  accumulate_any(ctx.kernels, ctx.exec(), b, right, false);
  if (!ctx.tape) return y;
  ctx.on_backward(y, [k = &ctx.kernels, exec = ctx.exec(), a, b, left = left, right = right] {
    if (const GradSink da = a.grad_sink(*exec.arena))
      accumulate_any(*k, exec, left.grad(), da.view, da.add);
    if (const GradSink db = b.grad_sink(*exec.arena))
      accumulate_any(*k, exec, right.grad(), db.view, db.add);
  });
  return y;
}

Value embedding(Ctx& ctx, const int32_t* ids, int64_t num_ids, const Value& table_WD) {
  Dims d("embedding");
  FM_DIMS(d, table_WD);
  check_rows("embedding", ids, num_ids, d['W']);
  return gather(ctx, table_WD, ids, num_ids);
}

Value select_rows(Ctx& ctx, const Value& x_TD, const int32_t* rows, int64_t num_rows) {
  Dims d("select_rows");
  FM_DIMS(d, x_TD);
  check_rows("select_rows", rows, num_rows, d['T']);
  return gather(ctx, x_TD, rows, num_rows);
}

}  // namespace fathom
