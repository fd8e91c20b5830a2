#include "fathom/ops/grad_check.h"

#include <algorithm>
#include <cmath>

namespace fathom {
namespace {

// Offset in elements of the i-th element, in row-major order, of a strided view.
int64_t offset_of(const View& v, int64_t i) {
  int64_t offset = 0;
  for (int axis = v.rank - 1; axis >= 0; --axis) {
    offset += i % v.dim[axis] * v.stride[axis];
    i /= v.dim[axis];
  }
  return offset;
}

std::string coordinate(const View& v, int64_t i) {
  std::string out;
  for (int axis = v.rank - 1; axis >= 0; --axis) {
    out = fmt::format("{}{}{}", i % v.dim[axis], out.empty() ? "" : ",", out);
    i /= v.dim[axis];
  }
  return out;
}

// Weight of element i of output o in the scalar under test.
double weight_of(size_t o, int64_t i) {
  const uint64_t bits = hash_mix(o + 1, static_cast<uint64_t>(i));
  return static_cast<double>(bits >> 11) * 0x1p-52 - 1;
}

double scalar_of(const Checked& c) {
  double sum = c.loss;
  for (size_t o = 0; o < c.outputs.size(); ++o) {
    const View& v = c.outputs[o];
    for (int64_t i = 0; i < v.numel(); ++i)
      sum += weight_of(o, i) * v.as<double>()[offset_of(v, i)];
  }
  return sum;
}

void seed_outputs(const Checked& c, Arena& arena) {
  for (size_t o = 0; o < c.outputs.size(); ++o) {
    const GradSink sink = c.outputs[o].grad_sink(arena);
    if (!sink) continue;
    double* g = sink.view.as<double>();
    for (int64_t i = 0; i < sink.view.numel(); ++i) {
      double& d = g[offset_of(sink.view, i)];
      d = (sink.add ? d : 0) + weight_of(o, i);
    }
  }
}

double central_difference(Bench64& bench, CheckedProgram& program, double* element, double step) {
  Ctx ctx = bench.ctx(nullptr);
  const double kept = *element;
  *element = kept + step;
  const double high = scalar_of(program.run(ctx));
  *element = kept - step;
  const double low = scalar_of(program.run(ctx));
  *element = kept;
  return (high - low) / (2 * step);
}

// Compares one leaf; `which` is its number.
std::string check_leaf(Bench64& bench, size_t which, const Value& leaf, CheckedProgram& program,
                       const GradCheckOptions& options) {
  const View& v = leaf;
  const int64_t n = v.numel(), tried = std::min(n, options.max_elements);
  double scale = 1e-3, worst = -1, worst_got = 0, worst_want = 0;
  int64_t worst_at = 0;
  for (int64_t k = 0; k < tried; ++k) {
    const int64_t i = k * n / tried, offset = offset_of(v, i);
    const double want = central_difference(bench, program, v.as<double>() + offset, options.step);
    const double got = leaf.has_grad() ? leaf.grad().as<double>()[offset] : 0;
    scale = std::max(scale, std::abs(want));
    const double error = std::abs(got - want);
    if (error <= worst) continue;
    worst = std::isnan(error) ? HUGE_VAL : error;
    worst_got = got, worst_want = want, worst_at = i;
  }
  if (worst <= options.tolerance * scale) return {};
  return fmt::format(
      "leaf {} at [{}]: adjoint {:.10g}, difference {:.10g}, error {:.2g} of the largest "
      "gradient\n",
      which, coordinate(v, worst_at), worst_got, worst_want, worst / scale);
}

}  // namespace

Tensor Bench64::normal(std::initializer_list<int64_t> dims, double scale) {
  Tensor t = empty(arena, DType::kF64, dims);
  for (int64_t i = 0; i < t.view.numel(); ++i) t.as<double>()[i] = scale * random.normal();
  return t;
}

Value Bench64::leaf(std::initializer_list<int64_t> dims, double scale) {
  return parameter(normal(dims, scale));
}

std::string grad_check(Bench64& bench, const std::vector<Value>& leaves, CheckedProgram& program,
                       const GradCheckOptions& options) {
  for (const Value& leaf : leaves) leaf.node()->grad_written = false;
  Tape tape;
  Ctx ctx = bench.ctx(&tape);
  seed_outputs(program.run(ctx), bench.arena);
  tape.backward();
  std::string out;
  for (size_t i = 0; i < leaves.size(); ++i)
    out += check_leaf(bench, i, leaves[i], program, options);
  return out;
}

}  // namespace fathom
