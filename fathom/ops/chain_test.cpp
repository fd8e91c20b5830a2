// A small network through norms, rotation, router, experts, balance loss and head: the vector
// kernels in f32 against the reference in f64, and the same bits for any number of threads.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/ops/basic.h"
#include "fathom/ops/fp8.h"
#include "fathom/ops/loss.h"
#include "fathom/ops/moe.h"

namespace fathom {
namespace {

constexpr int64_t kT = 300, kD = 48, kF = 20, kE = 8, kA = 2, kW = 70;

struct Outcome {
  double loss = 0, balance = 0;
  std::vector<std::vector<double>> grads;
};

class Network {
 public:
  Network(const Kernels& k, DType real, int threads) : pool_(threads), real_(real), k_(k) {}

  Outcome run() {
    Tape tape;
    Ctx ctx{k_, pool_, arena_, real_, &tape, nullptr};
    const Value table = leaf({kW, kD}, 1), gain = leaf({kD}, 1), bias = leaf({kD}, 1);
    const Weight router = weight(ctx, {kE, kD}), head = weight(ctx, {kW, kD});
    ExpertWeights experts_of;
    for (int64_t e = 0; e < kE; ++e) {
      experts_of.gate_proj.push_back(weight(ctx, {kF, kD}));
      experts_of.up_proj.push_back(weight(ctx, {kF, kD}));
      experts_of.down_proj.push_back(weight(ctx, {kD, kF}));
    }
    std::vector<int32_t> ids, pos, target;
    for (int32_t t = 0; t < kT; ++t) {
      ids.push_back(static_cast<int32_t>(t * 13 % kW));
      pos.push_back(t % 150);
      target.push_back(t % 9 == 0 ? -1 : static_cast<int32_t>(t * 7 % kW));
    }
    const RopeTable rope_table{std::vector<double>(kD / 4, 0.1), 1};
    Outcome out;
    const Value x = embedding(ctx, ids.data(), kT, table);
    const Value turned =
        rope(ctx, split_dim(x, 2, kD / 2), pos.data(), rope_table, RopePairs::kHalves);
    const Value h = rms_norm(ctx, merge_dims(turned), gain, 1e-6);
    const auto routing = route(ctx, linear(ctx, h, router), {},
                               {.n_group = 4, .topk_group = 2, .num_experts_per_tok = kA}, forced_);
    if (!forced_) forced_ = routing->experts_TA;
    out.balance = balance_loss(ctx, routing, {0, 150, static_cast<int32_t>(kT)}, kA, 0.5);
    const Value y = add(ctx, x, experts(ctx, h, routing, experts_of));
    const Value z = layer_norm(ctx, y, gain, bias, 1e-6);
    out.loss = head_loss(ctx, z, head, target, std::vector<double>(kT, 0.01)).loss;
    tape.backward();
    for (const Value& v : leaves_) out.grads.push_back(values(v.grad()));
    leaves_.clear();
    next_ = 0;
    return out;
  }
  void force(Tensor experts_TA) { forced_ = std::move(experts_TA); }
  const Tensor& forced() const { return forced_; }

 private:
  Value leaf(std::initializer_list<int64_t> dims, double scale) {
    Tensor t = empty(arena_, real_, dims);
    Rng rng(5, "chain", next_++);
    for (int64_t i = 0; i < t.view.numel(); ++i) {
      const float v = static_cast<float>(scale * rng.normal());
      if (real_ == DType::kF64)
        t.as<double>()[i] = static_cast<double>(v);
      else
        t.as<float>()[i] = v;
    }
    leaves_.push_back(parameter(t));
    return leaves_.back();
  }
  Weight weight(const Ctx& ctx, std::initializer_list<int64_t> dims) {
    const Value v = leaf(dims, 0.2);
    Weight w = Weight::tied("w", v);
    w.pack(ctx, true);
    return w;
  }
  static std::vector<double> values(const View& v) {
    std::vector<double> out;
    for (int64_t i = 0; i < v.numel(); ++i) out.push_back(get_element(v, i));
    return out;
  }

  ThreadPool pool_;
  Arena arena_;
  DType real_;
  const Kernels& k_;
  Tensor forced_;
  std::vector<Value> leaves_;
  uint64_t next_ = 0;
};

TEST_CASE("f32 with vector kernels follows f64 with the reference through a whole network") {
  Network exact(cpu_ref(), DType::kF64, 1), fast(cpu_simd(), DType::kF32, 1);
  const Outcome want = exact.run();
  fast.force(exact.forced());
  const Outcome got = fast.run();
  CHECK(got.loss == doctest::Approx(want.loss).epsilon(1e-6));
  CHECK(got.balance == doctest::Approx(want.balance).epsilon(1e-6));
  for (size_t i = 0; i < want.grads.size(); ++i) {
    double norm = 0, error = 0;
    for (size_t j = 0; j < want.grads[i].size(); ++j) {
      norm += want.grads[i][j] * want.grads[i][j];
      error += std::pow(got.grads[i][j] - want.grads[i][j], 2);
    }
    CAPTURE(i);
    CHECK(norm > 0);
    CHECK(std::sqrt(error) <= 5e-6 * std::sqrt(norm));
  }
}

TEST_CASE(
    "the gradients of a network have the same bits for one and three threads, and in a second "
    "run") {
  Network one(cpu_simd(), DType::kF32, 1), three(cpu_simd(), DType::kF32, 3);
  const Outcome a = one.run(), b = three.run(), again = three.run();
  CHECK(a.loss == b.loss);
  CHECK(a.balance == b.balance);
  CHECK(a.grads == b.grads);
  CHECK(a.grads == again.grads);
}

TEST_CASE("fp8 simulation ops never ask for a gradient") {
  ThreadPool pool(1);
  Arena arena;
  Tape tape;
  Ctx ctx{cpu_simd(), pool, arena, DType::kF32, &tape, nullptr};
  const Value x = parameter(zeros(arena, DType::kF32, {2, 128}));
  x->as<float>()[3] = 3.3f;
  const Value rounded = fp8_round(ctx, x, ScaleFormat::kUe8m0);
  CHECK(rounded->as<float>()[3] == 3.25f);
  CHECK(bf16_round(ctx, x)->as<float>()[3] == to_float(to_bf16(3.3f)));
  CHECK(hadamard(ctx, x)->as<float>()[0] == doctest::Approx(3.3 / std::sqrt(128.0)).epsilon(1e-6));
  for (const Value& y : {rounded, bf16_round(ctx, x), hadamard(ctx, x)}) CHECK(!y.needs_grad());
  CHECK(tape.size() == 0);
}

}  // namespace
}  // namespace fathom
