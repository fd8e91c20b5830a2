#include "fathom/ops/linear.h"

#include "fathom/kernels/gemm.h"
#include "fathom/ops/result_block.h"

namespace fathom {

// What a product reads of a weight lies together: hundreds of weights take part in a decoded token,
// and between two tokens their descriptions leave the cache.
struct alignas(64) Weight::Packs {
  WeightRef ref;
  PackedB forward, transposed;
  Tensor forward_memory, transposed_memory;
  Packs(const View& raw, const View& scale) : ref{.raw = raw, .scale = scale} {}
};

Weight Weight::trainable(std::string name, Tensor data) {
  FM_CHECK(data.view.rank == 2, "{}: rank {}", name, data.view.rank);
  FM_CHECK(data.view.dtype == DType::kF32 || data.view.dtype == DType::kF64, "{}: {}", name,
           dtype_name(data.view.dtype));
  Weight w;
  w.name_ = std::move(name);
  w.value_ = parameter(data);
  w.raw_ = std::move(data);
  w.packs_ = std::make_shared<Packs>(w.raw_, w.scale_);
  return w;
}

Weight Weight::tied(std::string name, const Value& table) {
  Weight w;
  w.name_ = std::move(name);
  w.value_ = table;
  w.raw_ = Tensor(table.view(), table.node());
  w.packs_ = std::make_shared<Packs>(w.raw_, w.scale_);
  return w;
}

Weight Weight::stored(std::string name, Tensor raw, Tensor scale) {
  FM_CHECK(raw.view.rank == 2, "{}: rank {}", name, raw.view.rank);
  Weight w;
  w.name_ = std::move(name);
  w.raw_ = std::move(raw);
  w.scale_ = std::move(scale);
  w.packs_ = std::make_shared<Packs>(w.raw_, w.scale_);
  return w;
}

Weight Weight::rows(int64_t begin, int64_t size) const {
  FM_CHECK(!scale_, "{}: rows of a weight with scales", name_);
  Weight w;
  w.name_ = name_;
  w.raw_ = Tensor(slice(raw_.view, 0, begin, size), raw_.owner);
  if (value_) w.value_ = slice(value_, 0, begin, size);
  w.packs_ = std::make_shared<Packs>(w.raw_, w.scale_);
  return w;
}

int64_t Weight::packed_bytes(const Kernels& kernels, bool transposed) const {
  return kernels.packed_bytes({.raw = raw_, .scale = scale_, .transposed = transposed});
}

void Weight::pack_form(const Ctx& ctx, bool transposed, GradProducts products) {
  Tensor& memory = transposed ? packs_->transposed_memory : packs_->forward_memory;
  PackWeight p{.raw = raw_, .scale = scale_, .transposed = transposed, .products = products};
  const int64_t size_bytes = ctx.kernels.packed_bytes(p);
  if (size_bytes == 0) return;
  if (!memory || memory.view.numel() != size_bytes)
    memory = empty(ctx.arena, DType::kU8, {size_bytes});
  p.dst = memory.view.data;
  p.out = transposed ? &packs_->transposed : &packs_->forward;
  ctx.kernels.pack(ctx.exec(), p);
  (transposed ? packs_->ref.packed_t : packs_->ref.packed) = p.out;
}

void Weight::pack(const Ctx& ctx, bool with_transposed) {
  pack_form(ctx, false);
  if (with_transposed) pack_form(ctx, true, ctx.gradient_products);
}

void Weight::pack_at(const Ctx& ctx, std::byte* memory) {
  const int64_t size_bytes = packed_bytes(ctx.kernels);
  packs_->forward_memory = Tensor(make_view(memory, DType::kU8, {size_bytes}), nullptr);
  pack_form(ctx, false);
}

void Weight::use_packed(const Ctx& ctx, bool transposed, Tensor memory) {
  FM_CHECK(memory.view.numel() == packed_bytes(ctx.kernels, transposed), "{}: {} bytes", name_,
           memory.view.numel());
  View outline = raw_;
  outline.data = nullptr;
  PackedB* packed = transposed ? &packs_->transposed : &packs_->forward;
  ctx.kernels.pack(
      ctx.exec(),
      {.raw = outline, .transposed = transposed, .dst = memory.view.data, .out = packed});
  (transposed ? packs_->ref.packed_t : packs_->ref.packed) = packed;
  (transposed ? packs_->transposed_memory : packs_->forward_memory) = std::move(memory);
}

const Tensor& Weight::packed_memory(bool transposed) const {
  return transposed ? packs_->transposed_memory : packs_->forward_memory;
}

void Weight::forget_raw() {
  FM_CHECK(!value_ && packs_ && (packs_->forward_memory || packs_->transposed_memory),
           "{}: the stored form is all there is", name_);
  raw_.view.data = scale_.view.data = nullptr;
  packs_->ref.raw.data = packs_->ref.scale.data = nullptr;
  raw_.owner = scale_.owner = nullptr;
}

WeightRef Weight::ref() const { return packs_->ref; }

namespace {

// [.., K] with equal row strides as [rows, K].
View as_rows(const View& v) {
  if (v.rank == 2) return v;
  View out = v;
  while (out.rank > 2) {
    FM_CHECK(out.stride[out.rank - 3] == out.dim[out.rank - 2] * out.stride[out.rank - 2] ||
                 out.dim[out.rank - 3] == 1,
             "rows are not evenly spaced");
    out.dim[out.rank - 3] *= out.dim[out.rank - 2];
    out.stride[out.rank - 3] = out.stride[out.rank - 2];
    out.dim[out.rank - 2] = out.dim[out.rank - 1];
    out.stride[out.rank - 2] = 1;
    --out.rank;
  }
  return out;
}

// The gradients of H row ranges of one master as [H,N,K]; empty when none is needed. Ranges are
// never a whole tensor, so their sinks always add.
View grads_of_heads(const std::vector<Weight>& w, Arena& arena) {
  const GradSink first = w[0].value().grad_sink(arena);
  if (!first) return {};
  FM_CHECK(first.add || w.size() == 1, "{}: a head is the whole weight", w[0].name());
  if (!first.add) fill_zero(first.view);
  View out = make_view(first.view.data, first.view.dtype,
                       {static_cast<int64_t>(w.size()), first.view.dim[0], first.view.dim[1]});
  out.stride[1] = first.view.stride[0];
  if (w.size() > 1) {
    const View second = w[1].value().grad_sink(arena).view;
    out.stride[0] = (static_cast<char*>(second.data) - static_cast<char*>(first.view.data)) /
                    dtype_bytes(out.dtype);
  }
  return out;
}

// The products of linear_list(); makes y. The list is this thread's, until the next call.
const std::vector<Linear>& list_of(Ctx& ctx, const Value& x, std::span<const Weight* const> w,
                                   std::span<Value> y) {
  const View x_MK = as_rows(x);
  const int64_t M = x_MK.dim[0];
  int64_t size_bytes = 0;
  for (const Weight* one : w) size_bytes += ResultBlock::bytes(ctx.real, M * one->out());
  ResultBlock block(ctx, size_bytes);
  thread_local std::vector<Linear> list;
  list.clear();
  for (size_t i = 0; i < w.size(); ++i) {
    FM_CHECK(x_MK.dim[1] == w[i]->in(), "{}: input has {} columns, the weight takes {}",
             w[i]->name(), x_MK.dim[1], w[i]->in());
    y[i] = block.value(ctx.real, {M, w[i]->out()});
    list.push_back({.x = x_MK, .w = w[i]->ref(), .y = y[i]});
  }
  return list;
}

// The product of head_linear(); makes y. Its list of weights is this thread's, until the next call.
HeadLinear heads_of(Ctx& ctx, const Value& x_THK, const std::vector<Weight>& w, HeadForm form,
                    Value* y_THN) {
  const bool transposed = form == HeadForm::kTransposed;
  const int64_t T = x_THK->dim[0], H = x_THK->dim[1];
  FM_CHECK(static_cast<int64_t>(w.size()) == H, "{} heads, {} weights", H, w.size());
  const int64_t N = transposed ? w[0].out() : w[0].in();
  FM_CHECK(x_THK->dim[2] == (transposed ? w[0].in() : w[0].out()), "{}: input has {} columns",
           w[0].name(), x_THK->dim[2]);
  *y_THN = ctx.make({T, H, N}, {&x_THK, &w[0].value()});
  thread_local std::vector<WeightRef> refs;
  refs.clear();
  for (const Weight& one : w) refs.push_back(one.ref());
  return {.x = x_THK, .w = refs.data(), .transposed = transposed, .y = *y_THN};
}

}  // namespace

Value linear(Ctx& ctx, const Value& x, const Weight& w) {
  const View x_MK = as_rows(x);
  FM_CHECK(x_MK.dim[1] == w.in(), "{}: input has {} columns, the weight takes {}", w.name(),
           x_MK.dim[1], w.in());
  Value y = ctx.make({x_MK.dim[0], w.out()}, {&x, &w.value()});
  ctx.kernels.linear(ctx.exec(), {.x = x_MK, .w = w.ref(), .y = y});
  if (!ctx.tape) return y;
  ctx.on_backward(y, [exec = ctx.exec(), k = &ctx.kernels, arena = &ctx.arena, x, w, y] {
    const View dy = y.grad();
    if (const GradSink dw = w.value().grad_sink(*arena))
      k->linear_dw(exec, {.dy = dy, .x = as_rows(x), .dw = dw.view, .add = dw.add});
    if (const GradSink dx = x.grad_sink(*arena))
      k->linear_dx(exec, {.dy = dy, .w = w.ref(), .dx = as_rows(dx.view), .add = dx.add});
  });
  return y;
}

void linear_list(Ctx& ctx, const Value& x, std::span<const Weight* const> w, std::span<Value> y) {
  if (ctx.tape) {
    for (size_t i = 0; i < w.size(); ++i) y[i] = linear(ctx, x, *w[i]);
    return;
  }
  const std::vector<Linear>& list = list_of(ctx, x, w, y);
  ctx.kernels.linears(ctx.exec(), list.data(), std::ssize(list));
}

Value scale(Ctx& ctx, const Value& x_TD, double factor) {
  Value y_TD = ctx.make_like(x_TD, {&x_TD});
  ctx.kernels.accumulate(ctx.exec(), {.x = x_TD, .y = y_TD, .scale = factor, .add = false});
  if (!ctx.tape) return y_TD;
  ctx.on_backward(
      y_TD, [exec = ctx.exec(), k = &ctx.kernels, arena = &ctx.arena, x_TD, y_TD, factor] {
        if (const GradSink dx = x_TD.grad_sink(*arena))
          k->accumulate(exec, {.x = y_TD.grad(), .y = dx.view, .scale = factor, .add = dx.add});
      });
  return y_TD;
}

Value head_linear(Ctx& ctx, const Value& x_THK, const std::vector<Weight>& w, HeadForm form) {
  Value y_THN;
  const HeadLinear heads = heads_of(ctx, x_THK, w, form, &y_THN);
  ctx.kernels.head_linear(ctx.exec(), heads);
  if (!ctx.tape) return y_THN;
  ctx.on_backward(
      y_THN, [exec = ctx.exec(), k = &ctx.kernels, arena = &ctx.arena, x_THK, w, y_THN,
              refs = std::vector(heads.w, heads.w + w.size()), transposed = heads.transposed] {
        const View dy = y_THN.grad();
        if (const View dw = grads_of_heads(w, *arena))
          k->head_linear_dw(
              exec, {.dy = dy, .x = x_THK, .transposed = transposed, .dw = dw, .add = true});
        if (const GradSink dx = x_THK.grad_sink(*arena))
          k->head_linear(
              exec,
              {.x = dy, .w = refs.data(), .transposed = !transposed, .y = dx.view, .add = dx.add});
      });
  return y_THN;
}

Value heads_then_linear(Ctx& ctx, const Value& x_THK, const std::vector<Weight>& heads,
                        HeadForm form, const Weight& w) {
  if (!ctx.fuses()) return linear(ctx, merge_dims(head_linear(ctx, x_THK, heads, form)), w);
  Value h_THN;
  const HeadLinear first = heads_of(ctx, x_THK, heads, form, &h_THN);
  const View h_MK = merge_dims(h_THN.view());
  FM_CHECK(h_MK.dim[1] == w.in(), "{}: input has {} columns, the weight takes {}", w.name(),
           h_MK.dim[1], w.in());
  const Value y = ctx.make({h_MK.dim[0], w.out()}, {});
  ctx.kernels.heads_then_linear(ctx.exec(), first, {.x = h_MK, .w = w.ref(), .y = y});
  return y;
}

Value linears_then_heads(Ctx& ctx, const Value& x, std::span<const Weight* const> w,
                         std::span<Value> y, const std::vector<Weight>& heads, HeadForm form) {
  const auto first_columns = [&] {
    const int64_t H = std::ssize(heads);
    const int64_t K = form == HeadForm::kTransposed ? heads[0].in() : heads[0].out();
    return slice(split_dim(y[0], H, y[0]->last() / H), 2, 0, K);
  };
  if (!ctx.fuses()) {
    linear_list(ctx, x, w, y);
    return head_linear(ctx, first_columns(), heads, form);
  }
  const std::vector<Linear>& list = list_of(ctx, x, w, y);
  Value y_THN;
  const HeadLinear then = heads_of(ctx, first_columns(), heads, form, &y_THN);
  ctx.kernels.linears_then_heads(ctx.exec(), list.data(), std::ssize(list), then);
  return y_THN;
}

}  // namespace fathom
