// Cross entropy, the optimiser step and the gradient norm against the reference.
#include "fathom/kernels/cpu/simd/kernel_testing.h"

namespace fathom {
namespace {

using testing::Call;
using testing::check_kernel;
using testing::Field;

struct LossCase {
  std::vector<int32_t> target;
  std::vector<double> weight;
  explicit LossCase(const Call& c) {
    for (int64_t t = 0; t < c.T; ++t) {
      target.push_back(t % 5 == 3 ? -1 : static_cast<int32_t>(t * 11 % c.D));
      weight.push_back(0.25 * static_cast<double>(t % 7) - 0.5);
    }
  }
};

TEST_CASE("simd cross_entropy: loss, lse and gradient, skipped rows, gradient over the logits") {
  const auto run = [](const Call& c) {
    const LossCase in(c);
    Field logits(c.T, c.D, 1, 9), nll(1, c.T, 0), lse(1, c.T, 0), dlogits(c.T, c.D, 0),
        column(c.T, 2, 0);
    c.k.cross_entropy(
        c.exec, {.logits = logits.view(c.begin, c.rows),
                 .target = in.target.data() + c.begin,
                 .nll = slice(nll.vector(), 0, c.begin, c.rows),
                 .lse = slice(lse.vector(), 0, c.begin, c.rows),
                 .weight = in.weight.data() + c.begin,
                 .dlogits = c.add ? logits.view(c.begin, c.rows) : dlogits.view(c.begin, c.rows)});
    for (int64_t t = 0; t < c.T; ++t) {
      column.at(t, 0) = nll.at(0, t);
      column.at(t, 1) = lse.at(0, t);
    }
    return std::vector{c.add ? logits : dlogits, column};
  };
  check_kernel(
      run, {.tolerance = 1e-6, .widths = {1, 15, 16, 17, 33, 300, 5000}, .heights = {0, 1, 2, 40}});
}

TEST_CASE("simd cross_entropy of far logits stays finite") {
  ThreadPool pool(1);
  Arena arena;
  std::vector<float> logits = {3e38f, -3e38f, 0, -HUGE_VALF}, d(4);
  float nll = -1;
  const int32_t target = 2;
  const double weight = 1;
  cpu_simd().cross_entropy({&pool, &arena},
                           {.logits = make_view(logits.data(), DType::kF32, {1, 4}),
                            .target = &target,
                            .nll = make_view(&nll, DType::kF32, {1}),
                            .weight = &weight,
                            .dlogits = make_view(d.data(), DType::kF32, {1, 4})});
  CHECK(nll == 3e38f);
  CHECK(d == std::vector<float>{1, 0, -1, 0});
}

TEST_CASE("simd adamw equals the reference, whatever the threads") {
  const auto run = [](const Call& c) {
    Field w(1, c.D, 1), m(1, c.D, 2, 0.1f), v(1, c.D, 3, 0.1f), dw(1, c.D, 4);
    for (int64_t i = 0; i < c.D; ++i) v.at(0, i) = std::abs(v.at(0, i));
    c.k.adamw(c.exec, {.w = w.vector(),
                       .m = m.vector(),
                       .v = v.vector(),
                       .dw = dw.vector(),
                       .lr = 0.01,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .eps = 1e-8,
                       .weight_decay = c.add ? 0.1 : 0,
                       .step = 3,
                       .grad_scale = 0.5});
    return std::vector{w, m, v};
  };
  check_kernel(run,
               {.row_exact = false, .widths = {0, 1, 15, 16, 17, 33, 100, 70000}, .heights = {1}});
}

TEST_CASE("simd sum_squares adds chunks in order, in f64") {
  const auto run = [](const Call& c) {
    Field x(1, c.D, 1), sum(1, 1, 0);
    double value = -1;
    c.k.sum_squares(c.exec, {.x = x.vector(), .sum = &value});
    sum.at(0, 0) = static_cast<float>(value);
    return std::vector{sum};
  };
  check_kernel(run, {.tolerance = 1e-7,
                     .row_exact = false,
                     .widths = {0, 1, 15, 16, 17, 4096, 4097, 50000},
                     .heights = {1}});
}

}  // namespace
}  // namespace fathom
