#include "fathom/ops/moe.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/ops/basic.h"
#include "fathom/ops/grad_check.h"
#include "fathom/ops/quantize.h"

namespace fathom {
namespace {

Tensor of(Bench64& b, std::initializer_list<int64_t> dims, std::initializer_list<double> values) {
  Tensor t = empty(b.arena, DType::kF64, dims);
  std::copy(values.begin(), values.end(), t.as<double>());
  return t;
}

TEST_CASE("route: masked groups count as -inf, not 0 (model spec 3.6)") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  const double s[8] = {.9, .1, .2, .3, .8, .05, .4, .35};
  const Tensor logits = empty(b.arena, DType::kF64, {1, 8}),
               bias = empty(b.arena, DType::kF64, {8});
  for (int e = 0; e < 8; ++e) {
    logits.as<double>()[e] = std::log(s[e] / (1 - s[e]));
    bias.as<double>()[e] = -0.5;
  }
  const GateOptions options{
      .n_group = 4, .topk_group = 2, .num_experts_per_tok = 3, .routed_scaling_factor = 2.5};
  const auto r = route(ctx, constant(logits), bias, options);
  const int32_t experts[3] = {0, 4, 1};
  const double weights[3] = {1.25, 1.111111111, 0.138888889};
  for (int k = 0; k < 3; ++k) {
    CHECK(r->experts_TA.as<int32_t>()[k] == experts[k]);
    CHECK(r->weights_TA->as<double>()[k] == doctest::Approx(weights[k]).epsilon(1e-8));
  }
}

TEST_CASE("route: golden gate (model spec 9.1)") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  const Tensor logits = zeros(b.arena, DType::kF64, {6, 8}),
               bias = empty(b.arena, DType::kF64, {8});
  for (int e = 0; e < 8; ++e) bias.as<double>()[e] = 0.6 * std::sin(1.7 * e) - 0.9;
  for (int t = 0; t < 6; ++t)
    for (int e = 0; e < 8; ++e)
      for (int j = 0; j < 16; ++j)
        logits.as<double>()[t * 8 + e] += 3 * std::cos(0.5 * (t + 1) + 0.3 * j * (t + 1)) *
                                          std::sin(0.37 * (e + 1) * (j + 2) + 1.2) / 4;
  const GateOptions options{
      .n_group = 4, .topk_group = 2, .num_experts_per_tok = 3, .routed_scaling_factor = 2.5};
  const auto r = route(ctx, constant(logits), bias, options);
  const int32_t experts[2][3] = {{1, 5, 0}, {4, 5, 1}};
  const double weights[2][3] = {{0.571652596, 0.661599952, 1.266747452},
                                {1.284179262, 0.786515027, 0.429305711}};
  for (int row = 0; row < 2; ++row)
    for (int k = 0; k < 3; ++k) {
      CHECK(r->experts_TA.as<int32_t>()[row * 15 + k] == experts[row][k]);
      CHECK(r->weights_TA->as<double>()[row * 15 + k] ==
            doctest::Approx(weights[row][k]).epsilon(1e-8));
    }
}

TEST_CASE("route sorts slots by expert, then token") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  const Value logits = b.leaf({20, 6});
  const auto r = route(ctx, logits, {}, {.num_experts_per_tok = 2});
  CHECK(r->offset.front() == 0);
  CHECK(r->offset.back() == 40);
  for (size_t e = 0; e < 6; ++e)
    for (int32_t p = r->offset[e]; p < r->offset[e + 1]; ++p) {
      const size_t slot = static_cast<size_t>(p);
      if (p > r->offset[e]) CHECK(r->token[slot] > r->token[slot - 1]);
      const int32_t* chosen = r->experts_TA.as<int32_t>() + r->token[slot] * 2;
      CHECK((chosen[0] == static_cast<int32_t>(e) || chosen[1] == static_cast<int32_t>(e)));
    }
  for (size_t i = 0; i < 40; ++i) {
    const int32_t slot = r->slot[i];
    CHECK(r->token[static_cast<size_t>(slot)] == static_cast<int32_t>(i / 2));
    const size_t e = static_cast<size_t>(r->experts_TA.as<int32_t>()[i]);
    CHECK((slot >= r->offset[e] && slot < r->offset[e + 1]));
  }
}

TEST_CASE("route breaks ties by the lowest index and survives NaN") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  const auto equal = route(ctx, constant(zeros(b.arena, DType::kF64, {1, 8})), {},
                           {.n_group = 4, .topk_group = 2, .num_experts_per_tok = 3});
  for (int k = 0; k < 3; ++k) CHECK(equal->experts_TA.as<int32_t>()[k] == k);
  const Tensor bad = of(b, {1, 4}, {NAN, 1, NAN, 2});
  const auto mixed = route(ctx, constant(bad), {}, {.num_experts_per_tok = 3});
  CHECK(mixed->experts_TA.as<int32_t>()[0] == 3);
  CHECK(mixed->experts_TA.as<int32_t>()[1] == 1);
  CHECK(mixed->experts_TA.as<int32_t>()[2] == 0);
  for (const TopkMethod method :
       {TopkMethod::kNoauxTc, TopkMethod::kGreedy, TopkMethod::kGroupLimitedGreedy})
    for (const ScoringFunc scoring : {ScoringFunc::kSigmoid, ScoringFunc::kSoftmax})
      CHECK_NOTHROW(
          route(ctx, constant(of(b, {1, 4}, {NAN, NAN, NAN, NAN})), {},
                {.scoring = scoring, .method = method, .n_group = 2, .num_experts_per_tok = 2}));
}

TEST_CASE("group-limited greedy ranks groups by their best expert, noaux by the sum of two") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  const Value logits = constant(of(b, {1, 6}, {0.5, 0.4, 0.3, 1.0, -3, -3}));
  GateOptions options{.n_group = 2, .topk_group = 1, .num_experts_per_tok = 1};
  options.method = TopkMethod::kGroupLimitedGreedy;
  CHECK(route(ctx, logits, {}, options)->experts_TA.as<int32_t>()[0] == 3);
  options.method = TopkMethod::kNoauxTc;
  CHECK(route(ctx, logits, {}, options)->experts_TA.as<int32_t>()[0] == 0);
}

TEST_CASE("adjoint of the gate weights through the scores, not through the bias") {
  Bench64 b;
  const Value logits = b.leaf({5, 6});
  const Tensor bias = b.normal({6}, 0.3);
  for (const ScoringFunc scoring : {ScoringFunc::kSigmoid, ScoringFunc::kSoftmax})
    for (const bool norm : {false, true}) {
      const GateOptions options{.scoring = scoring,
                                .num_experts_per_tok = 3,
                                .norm_topk_prob = norm,
                                .routed_scaling_factor = 2.5};
      CHECK(grad_check(b, {logits}, [&](Ctx& ctx) {
              return Checked(route(ctx, logits, bias, options)->weights_TA);
            }) == "");
    }
}

TEST_CASE("weights of a replayed selection follow these logits") {
  Bench64 b;
  const Value logits = b.leaf({2, 5});
  const Tensor forced = empty(b.arena, DType::kI32, {2, 2});
  const int32_t chosen[4] = {4, 0, 1, 2};
  std::copy(chosen, chosen + 4, forced.as<int32_t>());
  const auto build = [&](Ctx& ctx) {
    const auto r = route(ctx, logits, {}, {.num_experts_per_tok = 2}, forced);
    for (int i = 0; i < 4; ++i) CHECK(r->experts_TA.as<int32_t>()[i] == chosen[i]);
    return Checked(r->weights_TA);
  };
  CHECK(grad_check(b, {logits}, build) == "");
}

TEST_CASE("balance loss: one for uniform scores, adjoint together with the gate weights") {
  Bench64 b;
  Ctx ctx = b.ctx(nullptr);
  // Rows whose top-2 sets cover all experts equally often, with equal normalised scores on average.
  const Tensor uniform = empty(b.arena, DType::kF64, {2, 4});
  for (int i = 0; i < 8; ++i) uniform.as<double>()[i] = (i < 4) == (i % 4 < 2) ? 1 : -1;
  const auto even = route(ctx, constant(uniform), {}, {.num_experts_per_tok = 2});
  CHECK(balance_loss(ctx, even, {0, 2}, 2, 1) == doctest::Approx(1));

  const Value logits = b.leaf({7, 6});
  for (const ScoringFunc scoring : {ScoringFunc::kSigmoid, ScoringFunc::kSoftmax})
    CHECK(grad_check(b, {logits}, [&](Ctx& c) {
            const auto r = route(c, logits, {}, {.scoring = scoring, .num_experts_per_tok = 2});
            Checked out(r->weights_TA);
            out.loss = 0.7 * balance_loss(c, r, {0, 3, 3, 7}, 2, 0.7);
            return out;
          }) == "");
  CHECK(grad_check(b, {logits}, [&](Ctx& c) {
          Checked out;
          const auto r = route(c, logits, {}, {.num_experts_per_tok = 2});
          out.loss = 0.7 * balance_loss(c, r, {0, 7}, 2, 0.7);
          return out;
        }) == "");
}

struct Experts {
  ExpertWeights weights;
  std::vector<Value> leaves;
  Experts(Bench64& b, int64_t num, int64_t D, int64_t F) {
    for (int64_t e = 0; e < num; ++e) {
      const auto make = [&](std::vector<Weight>& list, int64_t out, int64_t in) {
        list.push_back(Weight::trainable("w", b.normal({out, in}, 0.5)));
        leaves.push_back(list.back().value());
      };
      make(weights.gate_proj, F, D);
      make(weights.up_proj, F, D);
      make(weights.down_proj, D, F);
    }
  }
};

TEST_CASE("experts equal the sum written out, and their adjoint agrees for all inputs") {
  Bench64 b;
  const int64_t T = 5, D = 4, F = 3, E = 4, A = 2;
  const Value x = b.leaf({T, D}), logits = b.leaf({T, E});
  logits->as<double>()[3] = -9;  // expert 3 is rare
  Experts ex(b, E, D, F);
  Ctx ctx = b.ctx(nullptr);
  const auto r = route(ctx, logits, {}, {.num_experts_per_tok = A});
  const Value y = experts(ctx, x, r, ex.weights);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t i = 0; i < D; ++i) {
      double want = 0;
      for (int64_t k = 0; k < A; ++k) {
        const size_t e = static_cast<size_t>(r->experts_TA.as<int32_t>()[t * A + k]);
        for (int64_t f = 0; f < F; ++f) {
          double gate = 0, up = 0;
          for (int64_t j = 0; j < D; ++j) {
            gate +=
                x->as<double>()[t * D + j] * ex.weights.gate_proj[e].raw().as<double>()[f * D + j];
            up += x->as<double>()[t * D + j] * ex.weights.up_proj[e].raw().as<double>()[f * D + j];
          }
          want += r->weights_TA->as<double>()[t * A + k] * gate / (1 + std::exp(-gate)) * up *
                  ex.weights.down_proj[e].raw().as<double>()[i * F + f];
        }
      }
      CHECK(y->as<double>()[t * D + i] == doctest::Approx(want).epsilon(1e-12));
    }

  const Tensor fixed = r->experts_TA;
  std::vector<Value> leaves = ex.leaves;
  leaves.push_back(x);
  leaves.push_back(logits);
  CHECK(grad_check(b, leaves, [&](Ctx& c) {
          const auto routing =
              route(c, logits, {}, {.num_experts_per_tok = A, .routed_scaling_factor = 1.5}, fixed);
          return Checked(experts(c, x, routing, ex.weights));
        }) == "");
}

TEST_CASE("experts keep nothing without a tape, and take no tokens") {
  Bench64 b;
  Experts ex(b, 3, 4, 2);
  const Value x = b.leaf({6, 4}), logits = b.leaf({6, 3});
  Ctx ctx = b.ctx(nullptr);
  const int64_t before = b.arena.stats().in_use_bytes;
  {
    const auto r = route(ctx, logits, {}, {.num_experts_per_tok = 2});
    const int64_t routed = b.arena.stats().in_use_bytes;
    const Value y = experts(ctx, x, r, ex.weights);
    CHECK(b.arena.stats().in_use_bytes == routed + 256);  // y alone, and its head
  }
  CHECK(b.arena.stats().in_use_bytes == before);
  const auto none = route(ctx, slice(logits, 0, 0, 0), {}, {.num_experts_per_tok = 2});
  CHECK(experts(ctx, slice(x, 0, 0, 0), none, ex.weights)->numel() == 0);
}

// Random numbers in codes.
Weight coded(const Ctx& ctx, Quant q, int64_t N, int64_t K, uint64_t index) {
  Rng rng(3, "coded", index);
  const Tensor w = empty(ctx.arena, DType::kF32, {N, K});
  for (int64_t i = 0; i < N * K; ++i) w.as<float>()[i] = static_cast<float>(rng.normal());
  const QuantizedWeight codes = empty_quantized(ctx.arena, q, N, K);
  quantize(ctx.pool, w, q, codes);
  Weight out = Weight::stored("w", codes.codes, codes.scale);
  out.pack(ctx, false);
  return out;
}

TEST_CASE("experts and a shared network in common regions have the bits of one after another") {
  constexpr int64_t D = 128, F = 64, E = 5;
  Arena arena;
  ThreadPool pool(2);
  Ctx ctx{.kernels = cpu_simd(), .pool = pool, .arena = arena};
  for (const Quant q : {Quant::kQ8, Quant::kQ4})
    for (const int64_t T : {1, 3, 70}) {
      ExpertWeights w;
      for (uint64_t e = 0; e < E; ++e) {
        w.gate_proj.push_back(coded(ctx, q, F, D, 3 * e));
        w.up_proj.push_back(coded(ctx, q, F, D, 3 * e + 1));
        w.down_proj.push_back(coded(ctx, q, D, F, 3 * e + 2));
      }
      const Weight gate = coded(ctx, q, 2 * F, D, 90), up = coded(ctx, q, 2 * F, D, 91),
                   down = coded(ctx, q, D, 2 * F, 92);
      const Value x = ctx.make({T, D}, {}), logits = ctx.make({T, E}, {});
      Rng rng(4, "rows", 0);
      for (const Value& v : {x, logits})
        for (int64_t i = 0; i < v->numel(); ++i)
          v->as<float>()[i] = static_cast<float>(rng.normal());
      const auto routing = route(ctx, logits, {}, {.num_experts_per_tok = 2});
      const SharedExpert shared{gate, up, down};
      const Value together = experts_forward(ctx, x, *routing, w, &shared);
      const auto [g, u] = linears(ctx, x, gate, up);
      CHECK(std::memcmp(u->data, linear(ctx, x, up)->data, static_cast<size_t>(u->size_bytes())) ==
            0);
      const Value apart =
          add(ctx, experts(ctx, x, routing, w),
              linear(ctx, swiglu(ctx, linear(ctx, x, gate), linear(ctx, x, up)), down));
      CHECK(std::memcmp(together->data, apart->data, static_cast<size_t>(apart->size_bytes())) ==
            0);
      CHECK(g->dim[1] == 2 * F);
    }
}

}  // namespace
}  // namespace fathom
