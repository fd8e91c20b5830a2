#include "fathom/train/optimizer.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "fathom/train/train_testing.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

using namespace testing;

// One parameter of a textbook AdamW in doubles, written from the paper (Loshchilov and Hutter
// 2019).
struct Oracle {
  std::vector<double> w, m, v, ema;
  void step(const std::vector<double>& g, double factor, double lr, double decay, int t,
            const OptimizerOptions& o) {
    for (size_t i = 0; i < w.size(); ++i) {
      const double gi = g[i] * factor;
      w[i] *= 1 - lr * decay;
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * gi;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * gi * gi;
      const double mh = m[i] / (1 - std::pow(o.beta1, t)), vh = v[i] / (1 - std::pow(o.beta2, t));
      w[i] -= lr * mh / (std::sqrt(vh) + o.eps);
      ema[i] = o.ema_decay * ema[i] + (1 - o.ema_decay) * w[i];
    }
  }
};

std::vector<double> numbers(const View& v) {
  std::vector<double> out;
  for (int64_t i = 0; i < v.numel(); ++i) out.push_back(get_element(v, i));
  return out;
}

void set_gradient(Engine& e, const Value& v, Rng& rng, double size) {
  const GradSink sink = v.grad_sink(e.arena);
  for (int64_t i = 0; i < v->numel(); ++i) {
    const double g = size * rng.normal();
    if (v->dtype == DType::kF64)
      sink.view.as<double>()[i] = g;
    else
      sink.view.as<float>()[i] = static_cast<float>(g);
  }
}

std::vector<Param> two_params(Engine& e) {
  Rng rng(3, "params");
  std::vector<Param> params = {{"matrix", parameter(empty(e.arena, e.real, {3, 5}))},
                               {"vector", parameter(empty(e.arena, e.real, {7}))}};
  for (const Param& p : params)
    for (int64_t i = 0; i < p.value->numel(); ++i) {
      const double x = rng.normal();
      if (e.real == DType::kF64)
        p.value->as<double>()[i] = x;
      else
        p.value->as<float>()[i] = static_cast<float>(x);
    }
  return params;
}

void check_against_oracle(DType real, double gradient_size, double limit) {
  Engine e(real);
  const Ctx ctx = e.ctx();
  const std::vector<Param> params = two_params(e);
  OptimizerOptions o{
      .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.3, .ema_decay = 0.7};
  Optimizer optimizer(ctx, params, o);
  std::vector<Oracle> oracle;
  for (const Param& p : params) {
    const std::vector<double> w = numbers(p.value), zero(w.size());
    oracle.push_back({w, zero, zero, w});
  }
  Rng rng(9, "gradients");
  for (int t = 1; t <= 6; ++t) {
    double squares = 0;
    for (const Param& p : params) {
      set_gradient(e, p.value, rng, gradient_size);
      for (const double g : numbers(p.value.grad())) squares += g * g;
    }
    const double norm = optimizer.grad_norm(ctx), lr = 0.01 * t;
    CHECK(norm == doctest::Approx(std::sqrt(squares)).epsilon(1e-6));
    const double factor = std::min(1.0, 1 / (norm + 1e-6));
    for (size_t k = 0; k < params.size(); ++k)  // only the matrix decays
      oracle[k].step(numbers(params[k].value.grad()), factor, lr, k == 0 ? 0.3 : 0, t, o);
    optimizer.step(ctx, lr, norm);
    CHECK(optimizer.num_steps() == t);
    for (const Param& p : params) CHECK_FALSE(p.value.has_grad());
    const std::vector<Param> state = optimizer.state();
    REQUIRE(state.size() == 6);
    CHECK(state[0].name == "m.matrix");
    CHECK(state[5].name == "ema.vector");
    for (size_t k = 0; k < params.size(); ++k) {
      const std::vector<double> got[4] = {numbers(params[k].value), numbers(state[3 * k].value),
                                          numbers(state[3 * k + 1].value),
                                          numbers(state[3 * k + 2].value)};
      const std::vector<double>* want[4] = {&oracle[k].w, &oracle[k].m, &oracle[k].v,
                                            &oracle[k].ema};
      double worst = 0;
      for (int part = 0; part < 4; ++part)
        for (size_t i = 0; i < got[part].size(); ++i)
          worst = std::max(worst, std::fabs(got[part][i] - (*want[part])[i]));
      CHECK(worst < limit);
    }
  }
}

TEST_CASE("AdamW equals a scalar oracle: decay, bias correction, clipping, moving average") {
  check_against_oracle(DType::kF64, 0.01, 1e-14);  // below the clipping norm
  check_against_oracle(DType::kF64, 10, 1e-14);    // clipped
  check_against_oracle(DType::kF32, 0.01, 2e-6);
  check_against_oracle(DType::kF32, 10, 2e-6);
}

TEST_CASE("AdamW: no clipping with clip_norm 0; no average with ema_decay 0") {
  Engine e;
  const Ctx ctx = e.ctx();
  const std::vector<Param> params = two_params(e);
  Optimizer optimizer(ctx, params, {.clip_norm = 0});
  CHECK(optimizer.state().size() == 4);
  Rng rng(1, "g");
  for (const Param& p : params) set_gradient(e, p.value, rng, 100);
  const std::vector<double> g = numbers(params[1].value.grad());
  optimizer.step(ctx, 1e-3, optimizer.grad_norm(ctx));
  const std::vector<double> m = numbers(optimizer.state()[2].value);
  for (size_t i = 0; i < g.size(); ++i) CHECK(m[i] == doctest::Approx(0.1 * g[i]).epsilon(1e-13));
}

TEST_CASE(
    "AdamW: a parameter without a gradient is updated with zero: it decays and its moments fade") {
  Engine e;
  const Ctx ctx = e.ctx();
  const std::vector<Param> params = two_params(e);
  Optimizer optimizer(ctx, params, {.weight_decay = 0.5});
  const std::vector<double> matrix = numbers(params[0].value), vector = numbers(params[1].value);
  optimizer.step(ctx, 0.1, optimizer.grad_norm(ctx));
  for (size_t i = 0; i < matrix.size(); ++i)
    CHECK(numbers(params[0].value)[i] == doctest::Approx(matrix[i] * 0.95).epsilon(1e-15));
  CHECK(numbers(params[1].value) == vector);
}

TEST_CASE("frozen parameters stay bit for bit, whatever gradients and decay there are") {
  for (const DType real : {DType::kF64, DType::kF32})
    for (const char* trains : {"main", "indexer"}) {
      Engine e(real);
      const Ctx ctx = e.ctx();
      const Model model = random_model(ctx, nano_config(), 4);
      set_trainable(model, trains);
      Optimizer optimizer(ctx, model.weights.params, {});
      std::vector<Tensor> before;
      for (const Param& p : model.weights.params) {
        before.push_back(empty(e.arena, real, {p.value->numel()}));
        std::memcpy(before.back().view.data, p.value->data,
                    static_cast<size_t>(p.value->size_bytes()));
      }
      const TrainBatch batch = random_batch({6, 7});
      for (int i = 0; i < 2; ++i) {
        Tape tape;
        Ctx pass = e.ctx(&tape);
        run_objective(pass, model, batch, count_losses(batch), stage_c());
        optimizer.step(ctx, 0.01, optimizer.grad_norm(ctx));
      }
      size_t moved = 0;
      for (size_t k = 0; k < before.size(); ++k) {
        const Param& p = model.weights.params[k];
        const bool frozen = is_indexer(p.name) != (std::string(trains) == "indexer");
        const bool same = same_bits(before[k], p.value);
        moved += !same;
        CHECK_MESSAGE(same == frozen, trains << ": " << p.name);
        if (frozen) {
          CHECK_FALSE(p.value.has_grad());
          CHECK(largest(optimizer.state()[2 * k].value) == 0);
        }
      }
      CHECK(moved > 0);
    }
}

TEST_CASE("correction bias: moves by the speed toward the mean, not at the mean, in both types") {
  for (const DType real : {DType::kF64, DType::kF32}) {
    Engine e(real);
    const Tensor bias = zeros(e.arena, real, {4});
    update_correction_bias(bias, {10, 2, 6, 6}, 0.25);
    CHECK(numbers(bias) == std::vector<double>{-0.25, 0.25, 0, 0});
    update_correction_bias(bias, {0, 0, 0, 24}, 0.25);
    CHECK(numbers(bias) == std::vector<double>{0, 0.5, 0.25, -0.25});
    update_correction_bias(bias, {5, 5, 5, 5}, 0.25);
    CHECK(numbers(bias) == std::vector<double>{0, 0.5, 0.25, -0.25});
  }
}

TEST_CASE(
    "correction bias: repeated updates bring the loads of a skewed router toward each other") {
  Engine e;
  const Ctx ctx = e.ctx();
  const Model model = random_model(ctx, nano_config(), 12);
  const TrainBatch batch = random_batch({40, 40, 40});
  const auto spread = [&](bool update) {
    Ctx pass = e.ctx();
    const LossReport r = run_objective(pass, model, batch, count_losses(batch), {});
    const std::vector<int64_t>& count = r.expert_count[1];
    if (update)
      for (const Param& b : model.weights.buffers)
        if (b.name.starts_with("model.layers.1.")) update_correction_bias(b.value, count, 0.01);
    return *std::max_element(count.begin(), count.end()) -
           *std::min_element(count.begin(), count.end());
  };
  for (const Param& b : model.weights.buffers) b.value->as<double>()[0] = 0.6;  // favours expert 0
  const int64_t before = spread(false);
  for (int i = 0; i < 100; ++i) spread(true);
  CHECK(before > 60);
  CHECK(spread(false) < before / 3);
}

}  // namespace
}  // namespace fathom
