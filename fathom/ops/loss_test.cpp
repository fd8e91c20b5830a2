#include "fathom/ops/loss.h"

#include <doctest/doctest.h>

#include <cmath>

#include "fathom/ops/grad_check.h"

namespace fathom {
namespace {

TEST_CASE("head_loss equals the sum written out and skips negative targets") {
  Bench64 b;
  const Value h = b.leaf({4, 3});
  const Weight head = Weight::trainable("head", b.normal({7, 3}));
  const std::vector<int32_t> target = {6, -1, 0, 3};
  const std::vector<double> weight = {0.5, 9, 1, 2};
  Ctx ctx = b.ctx(nullptr);
  const HeadLoss got = head_loss(ctx, h, head, target, weight);
  double want = 0;
  for (size_t t = 0; t < 4; ++t) {
    double sum = 0, own = 0;
    for (int64_t w = 0; w < 7; ++w) {
      double logit = 0;
      for (int64_t i = 0; i < 3; ++i)
        logit +=
            h->as<double>()[static_cast<int64_t>(t) * 3 + i] * head.raw().as<double>()[w * 3 + i];
      sum += std::exp(logit);
      if (w == target[t]) own = logit;
    }
    const double nll = target[t] < 0 ? 0 : std::log(sum) - own;
    CHECK(got.nll[t] == doctest::Approx(nll).epsilon(1e-12));
    want += weight[t] * nll;
  }
  CHECK(got.loss == doctest::Approx(want).epsilon(1e-12));
  CHECK(!h.has_grad());
}

TEST_CASE("adjoint of head_loss over several chunks of rows, one of them without a target") {
  Bench64 b;
  const int64_t T = 600, W = 5;
  const Value h = b.leaf({T, 3});
  const Weight head = Weight::trainable("head", b.normal({W, 3}));
  std::vector<int32_t> target(static_cast<size_t>(T));
  std::vector<double> weight(static_cast<size_t>(T));
  for (size_t t = 0; t < target.size(); ++t) {
    target[t] = t >= 256 && t < 512 ? -1 : static_cast<int32_t>(b.random.below(6)) - 1;
    weight[t] = b.random.normal();
  }
  const auto build = [&](Ctx& ctx) {
    Checked out;
    out.loss = head_loss(ctx, h, head, target, weight).loss;
    return out;
  };
  CHECK(grad_check(b, {h, head.value()}, build) == "");
  for (int64_t i = 256 * 3; i < 512 * 3; ++i) CHECK(h.grad().as<double>()[i] == 0);
}

TEST_CASE("head_loss without any target leaves zero gradients, and adds to gradients that exist") {
  Bench64 b;
  const Value h = b.leaf({2, 3});
  const Weight head = Weight::trainable("head", b.normal({4, 3}));
  Tape tape;
  Ctx ctx = b.ctx(&tape);
  CHECK(head_loss(ctx, h, head, {-1, -1}, {1, 1}).loss == 0);
  for (int i = 0; i < 6; ++i) CHECK(h.grad().as<double>()[i] == 0);
  for (int i = 0; i < 12; ++i) CHECK(head.value().grad().as<double>()[i] == 0);
  head_loss(ctx, h, head, {1, 2}, {1, 1});
  std::vector<double> once(h.grad().as<double>(), h.grad().as<double>() + 6);
  head_loss(ctx, h, head, {1, 2}, {1, 1});
  for (size_t i = 0; i < 6; ++i)
    CHECK(h.grad().as<double>()[i] == doctest::Approx(2 * once[i]).epsilon(1e-12));
}

TEST_CASE("head_loss needs memory for one chunk of logits only, and takes no rows") {
  Bench64 b;
  const Weight head = Weight::trainable("head", b.normal({1000, 2}));
  const Value h = b.leaf({2048, 2});
  const int64_t before = b.arena.stats().in_use_bytes;
  Ctx ctx = b.ctx(nullptr);
  head_loss(ctx, h, head, std::vector<int32_t>(2048, 1), std::vector<double>(2048, 1.0));
  CHECK(b.arena.stats().peak_bytes - before < 2048 * 1000 * 8 / 4);
  CHECK(head_loss(ctx, slice(h, 0, 0, 0), head, {}, {}).loss == 0);
}

}  // namespace
}  // namespace fathom
