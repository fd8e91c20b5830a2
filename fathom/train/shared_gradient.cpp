#include "fathom/train/shared_gradient.h"

namespace fathom {
namespace {

constexpr int64_t kRow = 1024;

// Where parameter node's gradient lies in `flat`.
View place(const Tensor& flat, const Node& node, int64_t first) {
  View v = node.data.view;
  v.data = static_cast<std::byte*>(flat.view.data) + first * dtype_bytes(flat.view.dtype);
  return v;
}

}  // namespace

void SharedGradient::layout() {
  if (part_) return;
  constexpr int64_t kAlign = 16;  // numbers; vector kernels like their own cache lines
  int64_t size = 0;
  for (const Param& p : params_) {
    if (!p.value.needs_grad()) continue;
    FM_CHECK(p.value->dtype == ctx_.real, "{} is {}", p.name, dtype_name(p.value->dtype));
    slots_.push_back({p.value.node().get(), size});
    size += (p.value->numel() + kAlign - 1) / kAlign * kAlign;
  }
  const int64_t rows = std::max<int64_t>(1, (size + kRow - 1) / kRow);
  part_ = zeros(ctx_.arena, ctx_.real, {rows, kRow});
  sum_ = zeros(ctx_.arena, ctx_.real, {rows, kRow});
}

// The parameters' gradients are from now on those in `flat`.
void SharedGradient::attach(const Tensor& flat, bool written) {
  for (const Slot& s : slots_) {
    s.node->grad = Tensor(place(flat, *s.node, s.first), flat.owner);
    s.node->grad_written = written;
  }
}

// A gradient that a part has not touched is zero: so it is added, too, and every rank does the same
// sums.
void SharedGradient::add_part(bool first, int count) {
  if (comm_.rank() < count)
    for (const Slot& s : slots_)
      if (!s.node->grad_written) fill_zero(s.node->grad);
  if (comm_.size() > 1) {
    FM_CHECK(ctx_.real == DType::kF32, "ranks add f32");
    const auto n = static_cast<size_t>(part_.view.numel());
    comm_.add_in_order({part_.as<float>(), n}, count, !first, {sum_.as<float>(), n});
  } else if (first) {
    std::swap(part_, sum_);
  } else {
    ctx_.kernels.accumulate(ctx_.exec(), {.x = part_, .y = sum_, .scale = 1, .add = true});
  }
}

}  // namespace fathom
