// Test support: adjoints against central differences in f64.
//
//   Bench64 b;
//   Value x = b.leaf({3, 8}), g = b.leaf({8});
//   CHECK(grad_check(b, {x, g}, [&](Ctx& ctx) { return Checked(rms_norm(ctx, x, g, 1e-6)); }) ==
//   "");
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/ops/ctx.h"

namespace fathom {

// Everything a computation in f64 with the reference kernels needs, and leaves with random values.
struct Bench64 {
  explicit Bench64(uint64_t seed = 1) : random(seed, "grad_check") {}
  // Standard normal times `scale`; needs a gradient.
  Value leaf(std::initializer_list<int64_t> dims, double scale = 1);
  Tensor normal(std::initializer_list<int64_t> dims, double scale = 1);
  Ctx ctx(Tape* tape) { return {cpu_ref(), pool, arena, DType::kF64, tape, nullptr}; }

  ThreadPool pool{1};
  Arena arena;
  Rng random;
};

// What a checked computation returns: outputs, whose sum with fixed random weights is the scalar
// under test, and a loss that seeded its own gradients.
struct Checked {
  Checked() = default;
  Checked(Value output) : outputs{std::move(output)} {}  // NOLINT: implicit by design
  std::vector<Value> outputs;
  double loss = 0;
};

struct GradCheckOptions {
  double step = 1e-5;
  double tolerance = 1e-7;    // of the largest gradient of the leaf
  int64_t max_elements = 64;  // tried per leaf; more are sampled at an even distance
};

// The computation under test, without <functional>. Called many times; must depend on the leaves'
// data only.
struct CheckedProgram {
  virtual ~CheckedProgram() = default;
  virtual Checked run(Ctx& ctx) = 0;
};

// Empty if the adjoint of every leaf agrees; else the worst element with its coordinate and both
// values. A leaf that gets no gradient counts as zero. Values of the leaves are restored; their
// gradients are left for inspection.
std::string grad_check(Bench64& bench, const std::vector<Value>& leaves, CheckedProgram& program,
                       const GradCheckOptions& options = {});

template <class F>
std::string grad_check(Bench64& bench, const std::vector<Value>& leaves, F build,
                       const GradCheckOptions& options = {}) {
  struct Program final : CheckedProgram {
    explicit Program(F& f) : build_(f) {}
    Checked run(Ctx& ctx) override { return build_(ctx); }
    F& build_;
  } program(build);
  return grad_check(bench, leaves, static_cast<CheckedProgram&>(program), options);
}

}  // namespace fathom
