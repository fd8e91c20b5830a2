// Router, balance loss and expert sums against the reference.
#include "fathom/kernels/cpu/simd/kernel_testing.h"

namespace fathom {
namespace {

using testing::Call;
using testing::check_kernel;
using testing::Field;
using testing::KernelCheck;

Field output(const Call& c, int64_t T, int64_t D, uint64_t seed) {
  return Field(T, D, c.add ? seed : 0);
}

// Expert ids as floats, so that a Field can hold and compare them.
Field as_field(const std::vector<int32_t>& ids, int64_t T, int64_t A) {
  Field f(T, A, 0);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < A; ++k)
      f.at(t, k) = static_cast<float>(ids[static_cast<size_t>(t * A + k)]);
  return f;
}

TEST_CASE("simd gate: scores, selection and weights for every method") {
  for (const ScoringFunc scoring : {ScoringFunc::kSigmoid, ScoringFunc::kSoftmax})
    for (const TopkMethod method :
         {TopkMethod::kNoauxTc, TopkMethod::kGreedy, TopkMethod::kGroupLimitedGreedy})
      for (const int64_t groups : {1, 4}) {
        const auto run = [&](const Call& c) {
          const int64_t A = 3;
          Field logits(c.T, c.D, 1, 4), bias(1, c.D, 2, 0.3f), scores(c.T, c.D, 0),
              weights(c.T, A, 0);
          std::vector<int32_t> experts(static_cast<size_t>(c.T * A), -1);
          c.k.gate(c.exec, {.logits = logits.view(c.begin, c.rows),
                            .bias = c.add ? bias.vector() : View(),
                            .scoring = scoring,
                            .method = method,
                            .n_group = groups,
                            .topk_group = groups == 1 ? 1 : 2,
                            .norm_topk_prob = c.add,
                            .routed_scaling_factor = 2.5,
                            .scores = scores.view(c.begin, c.rows),
                            .experts = slice(make_view(experts.data(), DType::kI32, {c.T, A}), 0,
                                             c.begin, c.rows),
                            .weights = weights.view(c.begin, c.rows)});
          return std::vector{scores, weights, as_field(experts, c.T, A)};
        };
        check_kernel(run, {.tolerance = 1e-6, .widths = {8, 16, 20, 64, 260}});
      }
}

TEST_CASE("simd gate breaks ties as the reference does and survives NaN") {
  ThreadPool pool(2);
  Arena arena;
  const float inf = HUGE_VALF;
  for (const float value : {0.0f, NAN, inf, -inf}) {
    for (const int64_t groups : {1, 4}) {
      std::vector<float> logits(16, value), scores(16), weights(4);
      logits[5] = 1;
      std::vector<int32_t> got(4), want(4);
      for (const bool simd : {false, true})
        (simd ? cpu_simd() : cpu_ref())
            .gate({&pool, &arena},
                  {.logits = make_view(logits.data(), DType::kF32, {1, 16}),
                   .n_group = groups,
                   .topk_group = groups == 1 ? 1 : 2,
                   .scores = make_view(scores.data(), DType::kF32, {1, 16}),
                   .experts = make_view((simd ? got : want).data(), DType::kI32, {1, 4}),
                   .weights = make_view(weights.data(), DType::kF32, {1, 4})});
      CHECK(got == want);
    }
  }
}

TEST_CASE("simd gate_bwd, with and without a gradient at the scores") {
  for (const ScoringFunc scoring : {ScoringFunc::kSigmoid, ScoringFunc::kSoftmax})
    for (const int parts : {1, 2, 3})
      for (const bool norm : {false, true}) {
        const auto run = [&](const Call& c) {
          const int64_t A = 2;
          Field scores(c.T, c.D, 1), weights(c.T, A, 2), dweights(c.T, A, 3), dscores(c.T, c.D, 4),
              dlogits = output(c, c.T, c.D, 5);
          std::vector<int32_t> experts;
          for (int64_t t = 0; t < c.T; ++t) {
            experts.push_back(static_cast<int32_t>(t % c.D));
            experts.push_back(static_cast<int32_t>((t + 1) % c.D));
            for (int64_t e = 0; e < c.D; ++e) scores.at(t, e) = 0.5f + 0.4f * scores.at(t, e);
          }
          c.k.gate_bwd(c.exec, {.scores = scores.view(c.begin, c.rows),
                                .experts = slice(make_view(experts.data(), DType::kI32, {c.T, A}),
                                                 0, c.begin, c.rows),
                                .weights = weights.view(c.begin, c.rows),
                                .dweights = parts & 1 ? dweights.view(c.begin, c.rows) : View(),
                                .dscores = parts & 2 ? dscores.view(c.begin, c.rows) : View(),
                                .scoring = scoring,
                                .norm_topk_prob = norm,
                                .routed_scaling_factor = 2.5,
                                .dlogits = dlogits.view(c.begin, c.rows),
                                .add = c.add});
          return std::vector{dlogits};
        };
        check_kernel(run, {.widths = {2, 16, 17, 40}});
      }
}

TEST_CASE("simd balance over sequences of any length, one of them empty") {
  const auto run = [](const Call& c) {
    Field scores(c.T, c.D, 1), dscores = output(c, c.T, c.D, 2), loss(1, 1, 0);
    for (int64_t t = 0; t < c.T; ++t)
      for (int64_t e = 0; e < c.D; ++e) scores.at(t, e) = 0.5f + 0.4f * scores.at(t, e);
    const int32_t T = static_cast<int32_t>(c.T);
    const std::vector<int32_t> first_row = {0, T / 3, T / 3, T};
    double value = 0;
    c.k.balance(c.exec, {.scores = scores.view(),
                         .num_experts_per_tok = 2,
                         .num_seq = 3,
                         .first_row = first_row.data(),
                         .weight = 0.5,
                         .loss = &value,
                         .dscores = dscores.view(),
                         .add = c.add});
    loss.at(0, 0) = static_cast<float>(value);
    return std::vector{dscores, loss};
  };
  check_kernel(run, {.row_exact = false, .widths = {2, 8, 16, 17, 40}});
}

// Slots in an order that is not the tokens' order.
std::vector<int32_t> shuffled_slots(int64_t count) {
  std::vector<int32_t> slot;
  for (int64_t i = 0; i < count; ++i) slot.push_back(static_cast<int32_t>(count - 1 - i));
  return slot;
}

TEST_CASE("simd combine and gather_bwd") {
  const int64_t A = 3;
  check_kernel([&](const Call& c) {
    Field x(c.T * A, c.D, 1), weights(c.T, A, 2), y = output(c, c.T, c.D, 3),
                                                  dx = output(c, c.T, c.D, 4);
    const auto slot = shuffled_slots(c.T * A);
    c.k.combine(c.exec, {.x = x.view(),
                         .slot = slot.data() + c.begin * A,
                         .weights = weights.view(c.begin, c.rows),
                         .y = y.view(c.begin, c.rows),
                         .add = c.add});
    c.k.gather_bwd(c.exec, {.dxp = x.view(),
                            .slot = slot.data() + c.begin * A,
                            .num_experts_per_tok = A,
                            .dx = dx.view(c.begin, c.rows),
                            .add = c.add});
    return std::vector{y, dx};
  });
}

TEST_CASE("simd adjoint of weighted experts") {
  const int64_t A = 3;
  check_kernel(
      [&](const Call& c) {
        const int64_t P = c.T * A;
        Field gate(P, c.D, 1), up(P, c.D, 2), dy(P, c.D, 3), weights(c.T, A, 4), dgate(P, c.D, 0),
            dup(P, c.D, 0), weighted_h(P, c.D, 0), dweights = output(c, c.T, A, 5);
        const auto pair = shuffled_slots(P);
        c.k.expert_bwd(c.exec, {.gate = gate.view(),
                                .up = up.view(),
                                .dy = dy.view(),
                                .weights = weights.view(),
                                .pair = pair.data(),
                                .dgate = dgate.view(),
                                .dup = dup.view(),
                                .weighted_h = weighted_h.view(),
                                .dweights = dweights.view(),
                                .add_dweights = c.add});
        return std::vector{dgate, dup, weighted_h, dweights};
      },
      {.row_exact = false});
}

}  // namespace
}  // namespace fathom
