// Products of the backward pass: what they may change, and how far they are from exact ones.
#include <doctest/doctest.h>

#include <cmath>

#include "fathom/train/train_testing.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

using namespace testing;

// Weights that are wide enough to be split.
ModelConfig wide_config() {
  ModelConfig c = nano_config();
  c.hidden_size = 64;
  c.intermediate_size = 80;
  c.q_lora_rank = 40;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = c.v_head_dim = 32;
  c.moe_intermediate_size = 48;
  c.vocab_size = 72;
  c.initializer_range = 0.1;
  check_config(c, "wide");
  return c;
}

struct Pass {
  Model model;
  LossReport loss;
};

// A forward and backward pass of f32 weights in the precision of e.
Pass run_pass(Engine& e, GradProducts products, const ObjectiveOptions& o) {
  Engine single(DType::kF32);
  const Model from = random_model(single.ctx(), wide_config(), 3);
  Tape tape;
  Ctx ctx = e.ctx();
  ctx.gradient_products = products;
  Pass p{random_model(ctx, wide_config(), 3), {}};
  for (size_t i = 0; i < from.weights.params.size(); ++i) {
    const View a = from.weights.params[i].value, b = p.model.weights.params[i].value;
    convert(a, b);
  }
  p.model.weights.pack(ctx, true);
  ctx.tape = &tape;
  const TrainBatch batch = random_batch({90, 50, 31}, 8, 72);
  p.loss = run_objective(ctx, p.model, batch, count_losses(batch), o);
  return p;
}

double distance(const View& a, const View& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += std::pow(get_element(a, i) - get_element(b, i), 2);
  return std::sqrt(sum);
}

double norm(const View& a) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += std::pow(get_element(a, i), 2);
  return std::sqrt(sum);
}

TEST_CASE("split products change no loss, and gradients are as near to exact ones as f32's") {
  if (!cpu_simd().has_split_products()) return;
  for (const char* form : {"naive", "absorbed"}) {
    ObjectiveOptions o = stage_a();
    o.form = form;
    Engine exact, plain(DType::kF32), one(DType::kF32), two(DType::kF32, 2);
    const Pass want = run_pass(exact, GradProducts::kF32, o);
    const Pass f32 = run_pass(plain, GradProducts::kF32, o);
    const Pass split = run_pass(one, GradProducts::kSplit, o);
    const Pass again = run_pass(two, GradProducts::kSplit, o);
    CHECK(split.loss.total == f32.loss.total);
    double error = 0, error_f32 = 0;
    int64_t other = 0;
    for (size_t i = 0; i < want.model.weights.params.size(); ++i) {
      const Param& p = want.model.weights.params[i];
      if (!p.value.has_grad()) continue;
      const auto grad = [&](const Pass& pass) { return pass.model.weights.params[i].value.grad(); };
      CAPTURE(p.name);
      const double size = norm(grad(want));
      error += std::pow(distance(grad(split), grad(want)) / size, 2);
      error_f32 += std::pow(distance(grad(f32), grad(want)) / size, 2);
      CHECK(distance(grad(split), grad(want)) <= 1e-5 * size);
      CHECK(same_bits(grad(split), grad(again)));
      other += !same_bits(grad(split), grad(f32));
    }
    MESSAGE(form << ": root of squares " << std::sqrt(error) << ", f32 " << std::sqrt(error_f32));
    CHECK(error <= 2 * error_f32);
    CHECK(other > 10);  // the option does something
  }
}

TEST_CASE("gradient_products: auto asks kernels and type, f32 is f32, other words are errors") {
  Engine f32(DType::kF32), f64;
  const bool split = cpu_simd().has_split_products();
  CHECK(choose_gradient_products(f32.ctx(), "auto") ==
        (split ? GradProducts::kSplit : GradProducts::kF32));
  CHECK(choose_gradient_products(f32.ctx(), "f32") == GradProducts::kF32);
  CHECK(choose_gradient_products(f64.ctx(), "auto") == GradProducts::kF32);
  CHECK_THROWS_AS(choose_gradient_products(f32.ctx(), "bf16"), Error);
  CHECK_FALSE(cpu_ref().has_split_products());
}

}  // namespace
}  // namespace fathom
