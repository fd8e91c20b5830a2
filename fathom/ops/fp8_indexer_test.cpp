// The FP8 indexer on the golden case of the model specification, section 9.2.
#include <doctest/doctest.h>

#include <cmath>

#include "fathom/base/thread_pool.h"
#include "fathom/ops/attention.h"
#include "fathom/ops/fp8.h"

namespace fathom {
namespace {

constexpr int kT = 4, kJ = 2, kI = 128;

// Scores of every key for every query: T sequences of one row that all see the same keys.
Tensor all_scores(Ctx& ctx, const View& q_TD, const View& k_TI, const View& w_TJ) {
  SeqRows seqs{{0}, {}};
  PageTable keys{.page = {k_TI.data}, .first_page = {}, .stride = kI, .dtype = DType::kF32};
  for (int t = 0; t < kT; ++t) {
    seqs.first_row.push_back(t + 1);
    seqs.first_pos.push_back(kT - 1);
    keys.first_page.push_back(0);
  }
  Tensor scores_TS = empty(ctx.arena, DType::kF32, {kT, kT});
  ctx.kernels.index_scores(ctx.exec(), {.q = reshape(q_TD, {kT, kJ, kI}),
                                        .w = w_TJ,
                                        .rows = seqs.ref(),
                                        .keys = keys.ref(),
                                        .scores = scores_TS});
  return scores_TS;
}

void check_scores(const Tensor& got, const double (&want)[kT * kT]) {
  for (int i = 0; i < kT * kT; ++i)
    CHECK(std::fabs(static_cast<double>(got.as<float>()[i]) - want[i]) < 2e-7);
}

}  // namespace

TEST_CASE("indexer scores with and without Hadamard and FP8 are the golden ones") {
  for (const Kernels* kernels : {&cpu_ref(), &cpu_simd()}) {
    CAPTURE(kernels->name);
    ThreadPool pool(1);
    Arena arena;
    Ctx ctx{.kernels = *kernels, .pool = pool, .arena = arena};
    const Tensor q = empty(arena, DType::kF32, {kT * kJ, kI}),
                 k = empty(arena, DType::kF32, {kT, kI});
    const Tensor w = empty(arena, DType::kF32, {kT, kJ});
    for (int t = 0; t < kT; ++t) {
      for (int i = 0; i < kI; ++i) {
        k.as<float>()[t * kI + i] =
            to_float(to_bf16(static_cast<float>(std::cos(0.07 * (i + 1) + 0.9 * t))));
        for (int h = 0; h < kJ; ++h)
          q.as<float>()[(t * kJ + h) * kI + i] =
              to_float(to_bf16(static_cast<float>(std::sin(0.11 * (i + 1) * (h + 1) + 0.5 * t))));
      }
      for (int h = 0; h < kJ; ++h)
        w.as<float>()[t * kJ + h] =
            static_cast<float>(0.5 * std::cos(t + 2 * h) / std::sqrt(2.0) / std::sqrt(128.0));
    }
    const auto rotated = [&](const Tensor& x) {
      return bf16_round(ctx, hadamard(ctx, constant(x)));
    };
    const Value q_rotated = rotated(q), k_rotated = rotated(k);
    CHECK(get_element(q_rotated, 0) == 0.796875);
    CHECK(get_element(q_rotated, 2) == -0.083984375);
    CHECK(get_element(k_rotated, 1) == 0.08349609375);
    const Value q8 = fp8_round(ctx, q_rotated, ScaleFormat::kUe8m0),
                k8 = fp8_round(ctx, k_rotated, ScaleFormat::kUe8m0);
    check_scores(all_scores(ctx, q8, k8, w),
                 {0.353682326, 0.463817659, 0.200296299, 0, 0.033285099, 0.162721392, 0.1533308,
                  0.024357907, -0.007954898, -0.029483209, -0.126664283, -0.115450719, 0.009873181,
                  0.006165808, -0.197628755, -0.421292602});
    check_scores(all_scores(ctx, q, k, w),
                 {0.346151467, 0.435314268, 0.18985457, 0, 0.035915699, 0.155040511, 0.142800202,
                  0.022379504, -0.007301801, -0.028894207, -0.114367173, -0.113266279, 0.00163109,
                  0.001187079, -0.215546756, -0.432316181});
  }
}

}  // namespace fathom
