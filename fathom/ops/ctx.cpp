#include "fathom/ops/ctx.h"

#include <fmt/format.h>

#include <algorithm>

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

// Which elements of every run of v.stride[rank - 2] a view of all of `whole`'s rows takes; an empty
// range for other views.
Node::Columns columns_of(const View& v, const View& whole) {
  if (v.rank < 2 || !whole.contiguous()) return {0, 0};
  const int64_t period = v.stride[v.rank - 2];
  if (period == 0 || v.numel() / std::max<int64_t>(v.last(), 1) * period != whole.numel())
    return {0, 0};
  for (int i = v.rank - 2; i > 0; --i)
    if (v.stride[i - 1] != v.dim[i] * v.stride[i]) return {0, 0};
  const int64_t begin = (static_cast<const char*>(v.data) - static_cast<const char*>(whole.data)) /
                        dtype_bytes(v.dtype);
  return {begin, begin + v.last()};
}

// Writes zeros where nothing was written.
void complete(Node& n) {
  if (n.grad_written) return;
  n.grad_written = true;
  if (n.written_columns.empty()) return fill_zero(n.grad);
  std::sort(n.written_columns.begin(), n.written_columns.end(),
            [](auto a, auto b) { return a.begin < b.begin; });
  n.written_columns.push_back({n.period, n.period});
  View rows =
      make_view(n.grad.view.data, n.grad.view.dtype, {n.grad.view.numel() / n.period, n.period});
  int64_t at = 0;
  for (const Node::Columns& c : n.written_columns) {
    if (at < c.begin) fill_zero(slice(rows, 1, at, c.begin - at));
    at = c.end;
  }
  n.written_columns.clear();
}

// Whether a writer of `part` has to add to what is there. Parts that are columns of all rows (the
// heads' shares of a projection) are written one by one and never zeroed.
bool begin_write(Node& n, const View& part) {
  const View& whole = n.data;
  if (n.grad_written) return true;
  if (n.written_columns.empty() && part.data == whole.data && part.numel() == whole.numel()) {
    n.grad_written = true;
    return false;
  }
  const Node::Columns c = columns_of(part, whole);
  bool fits =
      c.begin < c.end && (n.written_columns.empty() || n.period == part.stride[part.rank - 2]);
  for (const Node::Columns& w : n.written_columns)
    fits = fits && (c.end <= w.begin || w.end <= c.begin);
  if (!fits) {
    complete(n);
    return true;
  }
  n.period = part.stride[part.rank - 2];
  n.written_columns.push_back(c);
  int64_t columns = 0;
  for (const Node::Columns& w : n.written_columns) columns += w.end - w.begin;
  if (columns == n.period) {
    n.grad_written = true;
    n.written_columns.clear();
  }
  return false;
}

}  // namespace

View Value::grad() const {
  FM_CHECK(has_grad(), "the gradient was never written");
  complete(*node_);
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
  const bool add = begin_write(n, view_);
  if (std::exchange(n.grad_shared, false) && n.grad.owner.use_count() > 1) {
    View v = n.grad.view;
    const std::shared_ptr<std::byte> block = arena.allocate(v.size_bytes());
    v.data = block.get();
    if (add) copy(n.grad, v);
    n.grad = Tensor(v, block);
  }
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
  Tensor data = empty(arena, real, dims);
  if (!tape) return {data.view, std::shared_ptr<Node>(std::move(data.owner), nullptr)};
  auto node = std::make_shared<Node>();
  node->data = std::move(data);
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

void probe(const Ctx& ctx, std::string_view name, int64_t layer, const View& v) {
  if (ctx.probe) ctx.probe->put(fmt::format(fmt::runtime(name), layer), v);
}

}  // namespace fathom
