// What every op is given: kernels, threads, memory, the tape (null while serving), a probe; and the
// Value that ops pass on.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/kernels/kernels.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct Probe;
class Tape;

// Shared by all views of one tensor: its gradient, allocated when first asked for.
struct Node {
  Tensor data;
  Tensor grad;
  bool needs_grad = false;
  bool grad_written = false;  // false: the next writer of the whole gradient uses `=`
  bool grad_shared = false;   // with another operand of a sum: copied before it is written
  // Until the whole gradient is written: which elements of every run of `period` are.
  struct Columns {
    int64_t begin, end;
  };
  int64_t period = 0;
  std::vector<Columns> written_columns;
};

struct GradSink {
  View view;
  bool add = false;
  explicit operator bool() const { return static_cast<bool>(view); }
};

// A tensor in a computation: a view of data plus, while training, of a gradient of the same layout.
// Cheap to copy. Converts to View so that it can be given to kernels and to FM_DIMS.
class Value {
 public:
  Value() = default;
  Value(View v, std::shared_ptr<Node> node) : view_(v), node_(std::move(node)) {}
  explicit operator bool() const { return static_cast<bool>(view_); }
  operator const View&() const { return view_; }  // NOLINT: usable wherever a view is
  const View& view() const { return view_; }
  const View* operator->() const { return &view_; }
  bool needs_grad() const { return node_ && node_->needs_grad; }
  // Something was written to the gradient: an adjoint whose output has none may return at once.
  bool has_grad() const {
    return node_ && (node_->grad_written || !node_->written_columns.empty());
  }
  View grad() const;                       // for reading; FM_CHECK(has_grad())
  GradSink grad_sink(Arena& arena) const;  // for writing; empty when no gradient is needed
  const std::shared_ptr<Node>& node() const { return node_; }

 private:
  View view_;
  std::shared_ptr<Node> node_;  // without a tape null, and owner of the data all the same
};

// Non-template part of Tape's closures.
class Adjoint {
 public:
  virtual ~Adjoint() = default;
  virtual void run() = 0;
};

// The adjoints of a forward pass in order. Losses add to `loss` and seed their inputs' gradients by
// themselves, so backward() needs no argument. Single-threaded.
class Tape {
 public:
  template <class F>
  void record(F f) {
    struct Closure final : Adjoint {
      explicit Closure(F g) : f_(std::move(g)) {}
      void run() override { f_(); }
      F f_;
    };
    adjoints_.push_back(std::make_unique<Closure>(std::move(f)));
  }
  // Runs the adjoints in reverse and drops each one, and the activations it holds, as it goes.
  void backward();
  void clear() { adjoints_.clear(); }
  size_t size() const { return adjoints_.size(); }

 private:
  std::vector<std::unique_ptr<Adjoint>> adjoints_;
};

// One thread of control uses a Ctx at a time; several Ctx (engines) may live in a process.
struct Ctx {
  const Kernels& kernels;
  ThreadPool& pool;
  Arena& arena;
  DType real = DType::kF32;  // of activations: kF32, or kF64 with cpu_ref()
  Tape* tape = nullptr;
  Probe* probe = nullptr;
  GradProducts gradient_products = GradProducts::kF32;  // of adjoints, and of packed weights
  bool fused = true;  // false: one kernel for each op, memory of its own for each result

  // Where nothing is recorded or dumped, small ops may join or write over what they were given,
  // with the same bits.
  bool fuses() const { return fused && !tape && !probe; }
  Exec exec() const { return {&pool, &arena, gradient_products}; }
  // A new uninitialised activation that needs a gradient when a tape is there and one of `inputs`
  // needs one.
  Value make(std::initializer_list<int64_t> dims, std::initializer_list<const Value*> inputs) const;
  Value make_like(const Value& x,
                  std::initializer_list<const Value*> inputs) const;  // contiguous, x's sizes
  Tensor scratch(DType dtype, std::initializer_list<int64_t> dims) const {
    return empty(arena, dtype, dims);
  }
  // Records `f` if `output` needs a gradient; f runs only when the output's gradient was written.
  // Ops return before they come here when there is no tape: `f` holds copies of all they were
  // given.
  template <class F>
  void on_backward(const Value& output, F f) {
    if (!tape || !output.needs_grad()) return;
    tape->record([output, f = std::move(f)] {
      if (output.has_grad()) f();
    });
  }
};

Value constant(Tensor data);   // never needs a gradient
Value parameter(Tensor data);  // a leaf with a gradient
Value detach(const Value& x);  // the same data, no gradient
Value reshape(const Value& x, std::initializer_list<int64_t> dims);
Value split_dim(const Value& x, int64_t a, int64_t b);
Value merge_dims(const Value& x);
Value slice(const Value& x, int axis, int64_t begin, int64_t size);
// Cuts the last dimension in two: views, nothing is copied.
std::pair<Value, Value> split_last(const Value& x, int64_t first, int64_t second);
// Dumps when a probe is there; "{}" in the name stands for the layer.
void probe(const Ctx& ctx, std::string_view name, const View& v);
void probe(const Ctx& ctx, std::string_view name, int64_t layer, const View& v);

}  // namespace fathom
