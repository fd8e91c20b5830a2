#include "fathom/ops/ctx.h"

#include "fathom/tensor/probe.h"

namespace fathom {
namespace {

// The part of `whole` (the node's gradient) that lies under `part` (a view of the node's data).
View same_place(const View& part, const Node& node) {
  const auto offset =
      static_cast<const char*>(part.data) - static_cast<const char*>(node.data.view.data);
  View g = part;
  g.data = static_cast<char*>(node.grad.view.data) + offset;
  return g;
}

}  // namespace

View Value::grad() const {
  FM_CHECK(has_grad(), "the gradient was never written");
  return same_place(view_, *node_);
}

GradSink Value::grad_sink(Arena& arena) const {
  if (!needs_grad()) return {};
  Node& n = *node_;
  if (!n.grad) {
    View v = n.data.view;
    std::shared_ptr<std::byte> block = arena.allocate(v.size_bytes());
    v.data = block.get();
    n.grad = Tensor(v, block);
  }
  const bool whole = view_.data == n.data.view.data && view_.numel() == n.data.view.numel();
  const bool add = n.grad_written || !whole;
  if (add && !n.grad_written) fill_zero(n.grad);
  n.grad_written = true;
  return {same_place(view_, n), add};
}

void Tape::backward() {
  while (!adjoints_.empty()) {
    const std::unique_ptr<Adjoint> last = std::move(adjoints_.back());
    adjoints_.pop_back();
    last->run();
  }
}

Value Ctx::make(std::initializer_list<int64_t> dims,
                std::initializer_list<const Value*> inputs) const {
  auto node = std::make_shared<Node>();
  node->data = empty(arena, real, dims);
  if (tape)
    for (const Value* x : inputs) node->needs_grad |= x->needs_grad();
  return {node->data.view, node};
}

Value Ctx::make_like(const Value& x, std::initializer_list<const Value*> inputs) const {
  const View& v = x;
  switch (v.rank) {
    case 1:
      return make({v.dim[0]}, inputs);
    case 2:
      return make({v.dim[0], v.dim[1]}, inputs);
    case 3:
      return make({v.dim[0], v.dim[1], v.dim[2]}, inputs);
    default:
      break;
  }
  FM_CHECK(v.rank == 4, "rank {}", v.rank);
  return make({v.dim[0], v.dim[1], v.dim[2], v.dim[3]}, inputs);
}

Value constant(Tensor data) {
  auto node = std::make_shared<Node>();
  node->data = std::move(data);
  return {node->data.view, node};
}

Value parameter(Tensor data) {
  Value v = constant(std::move(data));
  v.node()->needs_grad = true;
  return v;
}

Value detach(const Value& x) {
  auto node = std::make_shared<Node>();
  node->data = Tensor(x.view(), x.node());
  return {x.view(), node};
}

Value reshape(const Value& x, std::initializer_list<int64_t> dims) {
  return {reshape(x.view(), dims), x.node()};
}

Value split_dim(const Value& x, int64_t a, int64_t b) {
  return {split_dim(x.view(), a, b), x.node()};
}

Value merge_dims(const Value& x) { return {merge_dims(x.view()), x.node()}; }

Value slice(const Value& x, int axis, int64_t begin, int64_t size) {
  return {slice(x.view(), axis, begin, size), x.node()};
}

std::pair<Value, Value> split_last(const Value& x, int64_t first, int64_t second) {
  FM_CHECK(x->last() == first + second, "last dimension {} is not {} + {}", x->last(), first,
           second);
  const int axis = x->rank - 1;
  return {slice(x, axis, 0, first), slice(x, axis, first, second)};
}

void probe(const Ctx& ctx, std::string_view name, const View& v) {
  if (ctx.probe) ctx.probe->put(name, v);
}

}  // namespace fathom
