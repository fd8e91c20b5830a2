#include "fathom/train/objective.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "fathom/tensor/probe.h"
#include "fathom/train/optimizer.h"
#include "fathom/train/train_testing.h"

namespace fathom {
namespace {

using namespace testing;

LossReport losses(Engine& e, const Model& model, const TrainBatch& batch, const ObjectiveOptions& o,
                  Tape* tape = nullptr, Probe* probe = nullptr) {
  Ctx ctx = e.ctx(tape, probe);
  return run_objective(ctx, model, batch, count_losses(batch), o);
}

// Gradients over all parts of a batch, which stay in the parameters.
LossReport train_pass(Engine& e, const Model& model, const TrainBatch& batch,
                      const ObjectiveOptions& o, int64_t max_rows) {
  const LossCounts counts = count_losses(batch);
  LossReport r;
  for (size_t first = 0; first + 1 < batch.bounds.size();) {
    const TrainBatch part = take_part(batch, max_rows, &first);
    Tape tape;
    Ctx ctx = e.ctx(&tape);
    r.add(run_objective(ctx, model, part, counts, o));
  }
  return r;
}

void forget_gradients(const Model& model) {
  for (const Param& p : model.weights.params) p.value.node()->grad_written = false;
}

struct NamedOptions {
  const char* name;
  ObjectiveOptions options;
};

std::vector<NamedOptions> all_stages() {
  std::vector<NamedOptions> out = {{"a", stage_a()}, {"b", stage_b()}, {"c", stage_c()}};
  for (size_t i = 0; i < 3; ++i) {
    NamedOptions naive = out[i];
    naive.options.form = "naive";
    out.push_back(naive);
  }
  return out;
}

// ---- finite differences of the whole objective -------------------------------------------------

// Everything discrete that a forward pass chose: experts and selected keys.
std::vector<double> choices(const MemoryProbe& seen) {
  std::vector<double> out;
  for (const NamedTensor& t : seen.tensors())
    if (t.name.ends_with(".experts") || t.name.ends_with(".selected"))
      for (int64_t i = 0; i < t.tensor.view.numel(); ++i) out.push_back(get_element(t.tensor, i));
  return out;
}

// What a parameter's gradient is the derivative of: an indexer's is that of everything, the others'
// of everything but the KL, whose target and inputs are detached.
double learned(const LossReport& r, const ObjectiveOptions& o, bool indexer) {
  double kl = 0;
  for (const double k : r.layer_kl) kl += k;
  return r.total - (indexer ? 0 : o.indexer_kl_weight * kl);
}

struct Point {
  double loss;
  std::vector<double> choices;
};
Point evaluate(Engine& e, const Model& model, const TrainBatch& batch, const ObjectiveOptions& o,
               bool indexer) {
  MemoryProbe seen;
  const LossReport r = losses(e, model, batch, o, nullptr, &seen);
  return {learned(r, o, indexer), choices(seen)};
}

// Central differences at `samples` elements of every parameter; returns the number compared.
int check_differences(const NamedOptions& stage, int samples) {
  constexpr double kStep = 1e-5;
  Engine e;
  const Model model = random_model(e.ctx(), nano_config(), 21);
  const TrainBatch batch = random_batch({6, 2, 8});
  Tape tape;
  losses(e, model, batch, stage.options, &tape);
  Rng rng(2, "places");
  int compared = 0;
  for (const Param& p : model.weights.params) {
    const double size = p.value.has_grad() ? largest(p.value.grad()) : 0;
    for (int s = 0; s < samples; ++s) {
      const auto at = static_cast<int64_t>(rng.below(static_cast<uint64_t>(p.value->numel())));
      double& w = p.value->as<double>()[at];
      const double keep = w;
      w = keep + kStep;
      const Point up = evaluate(e, model, batch, stage.options, is_indexer(p.name));
      w = keep - kStep;
      const Point down = evaluate(e, model, batch, stage.options, is_indexer(p.name));
      w = keep;
      if (up.choices != down.choices) continue;  // a step over a boundary of a selection
      const double want = (up.loss - down.loss) / (2 * kStep);
      const double got = p.value.has_grad() ? get_element(p.value.grad(), at) : 0;
      ++compared;
      CHECK_MESSAGE(std::fabs(got - want) <= 1e-6 * size + 2e-9,
                    fmt::format("stage {} {} {}[{}]: adjoint {}, difference {}", stage.name,
                                stage.options.form, p.name, at, got, want));
    }
  }
  return compared;
}

TEST_CASE("finite differences of the whole objective, every parameter, all stages and forms") {
  Engine e;
  const Model model = random_model(e.ctx(), nano_config(), 21);
  const int params = static_cast<int>(model.weights.params.size());
  for (const NamedOptions& stage : all_stages()) {
    const int samples = stage.options.form == "naive" ? 1 : 2;
    CHECK(check_differences(stage, samples) > samples * params * 9 / 10);
  }
}

// ---- isolation ---------------------------------------------------------------------------------

TEST_CASE(
    "the main losses leave the indexer alone and the KL leaves the main model alone, exactly") {
  for (const DType real : {DType::kF64, DType::kF32})
    for (NamedOptions stage : all_stages())
      for (const char* attention : {"dense", "sparse"}) {
        Engine e(real);
        const Model model = random_model(e.ctx(), nano_config(), 31);
        const bool only_kl = stage.options.lm_weight == 0;
        stage.options.attention = attention;
        if (!only_kl) stage.options.indexer_kl_weight = 0;
        Tape tape;
        losses(e, model, random_batch({7, 9}), stage.options, &tape);
        for (const Param& p : model.weights.params) {
          const double size = p.value.has_grad() ? largest(p.value.grad()) : 0;
          const bool learns = is_indexer(p.name) == only_kl;
          CHECK_MESSAGE((size > 0) == learns, stage.name << " " << stage.options.form << " "
                                                         << attention << " " << p.name << " "
                                                         << size);
        }
      }
}

TEST_CASE("both losses together give exactly the sum of what each gives alone") {
  Engine e;
  const TrainBatch batch = random_batch({7, 9});
  const Model both = random_model(e.ctx(), nano_config(), 31),
              main = random_model(e.ctx(), nano_config(), 31);
  Tape tape_both, tape_main;
  losses(e, both, batch, stage_c(), &tape_both);
  ObjectiveOptions without = stage_c();
  without.indexer_kl_weight = 0;
  losses(e, main, batch, without, &tape_main);
  for (size_t k = 0; k < both.weights.params.size(); ++k) {
    const Param& p = both.weights.params[k];
    if (!is_indexer(p.name))
      CHECK_MESSAGE(same_bits(p.value.grad(), main.weights.params[k].value.grad()), p.name);
  }
}

// ---- parts, threads, probes --------------------------------------------------------------------

TEST_CASE("a batch cut into passes gives the same losses and gradients up to rounding") {
  for (const NamedOptions& stage : all_stages()) {
    Engine e;
    const Model whole = random_model(e.ctx(), nano_config(), 8);
    const TrainBatch batch = random_batch({6, 1, 8, 3, 5});
    const LossReport want = train_pass(e, whole, batch, stage.options, 1000);
    for (const int64_t max_rows : {1, 9, 22}) {
      const Model cut = random_model(e.ctx(), nano_config(), 8);
      const LossReport got = train_pass(e, cut, batch, stage.options, max_rows);
      CHECK(got.total == doctest::Approx(want.total).epsilon(1e-12));
      CHECK(got.lm == doctest::Approx(want.lm).epsilon(1e-12));
      CHECK(got.mtp == doctest::Approx(want.mtp).epsilon(1e-12));
      CHECK(got.balance == doctest::Approx(want.balance).epsilon(1e-12));
      CHECK(got.mean_kl() == doctest::Approx(want.mean_kl()).epsilon(1e-12));
      CHECK(got.expert_count == want.expert_count);
      for (size_t k = 0; k < cut.weights.params.size(); ++k) {
        const Value &a = whole.weights.params[k].value, &b = cut.weights.params[k].value;
        REQUIRE(a.has_grad() == b.has_grad());
        if (!a.has_grad()) continue;
        double worst = 0;
        for (int64_t i = 0; i < a->numel(); ++i)
          worst = std::max(worst, std::fabs(get_element(a.grad(), i) - get_element(b.grad(), i)));
        CHECK_MESSAGE(worst <= 1e-12 * (largest(a.grad()) + 1e-3), cut.weights.params[k].name);
      }
    }
  }
}

TEST_CASE("take_part: whole sequences in order, at least one, together the whole batch") {
  const TrainBatch batch = random_batch({6, 1, 8, 3, 5});
  for (const int64_t max_rows : {1, 7, 8, 100}) {
    std::vector<int32_t> tokens, lengths;
    for (size_t first = 0; first + 1 < batch.bounds.size();) {
      const TrainBatch part = take_part(batch, max_rows, &first);
      CHECK((part.num_rows() <= max_rows || part.bounds.size() == 2));
      CHECK(part.bounds.front() == 0);
      CHECK(part.bounds.back() == part.num_rows());
      CHECK(part.target.size() == part.token.size());
      CHECK(part.weight.size() == part.token.size());
      tokens.insert(tokens.end(), part.token.begin(), part.token.end());
      for (size_t b = 0; b + 1 < part.bounds.size(); ++b)
        lengths.push_back(part.bounds[b + 1] - part.bounds[b]);
    }
    CHECK(tokens == batch.token);
    CHECK(lengths == std::vector<int32_t>{6, 1, 8, 3, 5});
  }
}

// Five optimiser steps; the weights afterwards.
Model trained(Engine& e, const ObjectiveOptions& o, int64_t max_rows) {
  Model model = random_model(e.ctx(), nano_config(), 77);
  const Ctx plain = e.ctx();
  Optimizer optimizer(plain, model.weights.params, {});
  for (int step = 0; step < 5; ++step) {
    const TrainBatch batch =
        random_batch({30, 5, 17, 1, 40, 12}, 100 + static_cast<uint64_t>(step));
    const LossReport r = train_pass(e, model, batch, o, max_rows);
    optimizer.step(plain, 3e-3, optimizer.grad_norm(plain));
    for (const Param& b : model.weights.buffers)
      update_correction_bias(b.value, r.expert_count[b.name.starts_with("model.layers.1.") ? 1 : 2],
                             1e-3);
    model.weights.pack(plain, true);
  }
  return model;
}

TEST_CASE("five steps end in the same bits with 1 and 2 threads, and again with the same cuts") {
  for (const ObjectiveOptions& o : {stage_a(), stage_c()}) {
    Engine one(DType::kF32, 1), two(DType::kF32, 2), again(DType::kF32, 2);
    const Model a = trained(one, o, 48), b = trained(two, o, 48), c = trained(again, o, 48);
    for (const auto list : {&ModelWeights::params, &ModelWeights::buffers})
      for (size_t k = 0; k < (a.weights.*list).size(); ++k) {
        const Param& p = (a.weights.*list)[k];
        CHECK_MESSAGE(same_bits(p.value, (b.weights.*list)[k].value), p.name);
        CHECK_MESSAGE(same_bits((b.weights.*list)[k].value, (c.weights.*list)[k].value), p.name);
      }
  }
}

TEST_CASE("a probe changes no gradient and no loss") {
  Engine e(DType::kF32);
  const TrainBatch batch = random_batch({7, 9});
  for (const NamedOptions& stage : all_stages()) {
    const Model plain = random_model(e.ctx(), nano_config(), 5),
                probed = random_model(e.ctx(), nano_config(), 5);
    Tape tape_a, tape_b;
    MemoryProbe seen;
    const LossReport a = losses(e, plain, batch, stage.options, &tape_a),
                     b = losses(e, probed, batch, stage.options, &tape_b, &seen);
    CHECK(a.lm == b.lm);
    CHECK(a.total == doctest::Approx(b.total).epsilon(1e-12));
    for (size_t k = 0; k < plain.weights.params.size(); ++k) {
      const Value &x = plain.weights.params[k].value, &y = probed.weights.params[k].value;
      const std::string& name = plain.weights.params[k].name;
      if (x.has_grad() && y.has_grad())
        CHECK_MESSAGE(same_bits(x.grad(), y.grad()), stage.name << name);
      else
        CHECK_MESSAGE(
            (y.has_grad() ? largest(y.grad()) : 0) == (x.has_grad() ? largest(x.grad()) : 0),
            stage.name << name);
    }
  }
}

TEST_CASE("f32 with the vector kernels stays near f64") {
  for (const NamedOptions& stage : all_stages()) {
    Engine e64, e32(DType::kF32);
    const Model a = random_model(e64.ctx(), nano_config(), 15),
                b = random_model(e32.ctx(), nano_config(), 15);
    const TrainBatch batch = random_batch({20, 9});
    Tape tape_a, tape_b;
    const LossReport x = losses(e64, a, batch, stage.options, &tape_a),
                     y = losses(e32, b, batch, stage.options, &tape_b);
    REQUIRE(x.expert_count == y.expert_count);
    CHECK(y.total == doctest::Approx(x.total).epsilon(1e-5));
    for (size_t k = 0; k < a.weights.params.size(); ++k) {
      const Value &p = a.weights.params[k].value, &q = b.weights.params[k].value;
      REQUIRE(p.has_grad() == q.has_grad());
      if (!p.has_grad()) continue;
      double worst = 0;
      for (int64_t i = 0; i < p->numel(); ++i)
        worst = std::max(worst, std::fabs(get_element(p.grad(), i) - get_element(q.grad(), i)));
      CHECK_MESSAGE(worst <= 1e-4 * largest(p.grad()) + 1e-7,
                    stage.name << a.weights.params[k].name);
    }
  }
}

// ---- corners -----------------------------------------------------------------------------------

TEST_CASE("every token goes to num_experts_per_tok experts, prediction layer included") {
  Engine e;
  const Model model = random_model(e.ctx(), nano_config(), 3);
  const TrainBatch batch = random_batch({11, 4, 9});
  const LossReport r = losses(e, model, batch, stage_a());
  const LossCounts counts = count_losses(batch);
  REQUIRE(r.expert_count.size() == 3);
  CHECK(r.expert_count[0].empty());
  const auto total = [](const std::vector<int64_t>& c) {
    int64_t n = 0;
    for (const int64_t k : c) n += k;
    return n;
  };
  CHECK(total(r.expert_count[1]) == 2 * counts.rows);
  CHECK(total(r.expert_count[2]) == 2 * counts.mtp_rows);
  CHECK(counts.mtp_rows == 24 - 1);  // the second sequence ends without a target
}

TEST_CASE("batches without any target, or of single tokens, train without a crash") {
  for (const DType real : {DType::kF64, DType::kF32})
    for (const NamedOptions& stage : all_stages()) {
      Engine e(real);
      const Model model = random_model(e.ctx(), nano_config(), 3);
      TrainBatch none = random_batch({4, 1});
      for (size_t t = 0; t < none.token.size(); ++t) {
        none.target[t] = -1;
        none.weight[t] = 0;
      }
      const LossReport r = train_pass(e, model, none, stage.options, 100);
      CHECK(r.lm == 0);
      CHECK(r.mtp == 0);
      CHECK(std::isfinite(r.total));
      forget_gradients(model);
      CHECK(std::isfinite(train_pass(e, model, random_batch({1, 1, 1}), stage.options, 1).total));
    }
}

TEST_CASE("unknown words in the options are errors") {
  Engine e;
  const Model model = random_model(e.ctx(), nano_config(), 3);
  ObjectiveOptions o;
  o.attention = "spares";
  CHECK_THROWS_WITH_AS(losses(e, model, random_batch({3}), o),
                       "attention: expected dense or sparse, found \"spares\"", Error);
  o = {};
  o.form = "fast";
  CHECK_THROWS_WITH_AS(losses(e, model, random_batch({3}), o),
                       "form: expected absorbed or naive, found \"fast\"", Error);
}

TEST_CASE(
    "warm-up: the indexer's KL falls and the selected keys come to hold more of the attention") {
  Engine e(DType::kF32);
  Model model = random_model(e.ctx(), nano_config(), 41);
  const Ctx plain = e.ctx();
  for (const Param& p : model.weights.params) p.value.node()->needs_grad = is_indexer(p.name);
  Optimizer optimizer(plain, model.weights.params, {.weight_decay = 0});
  ObjectiveOptions o = stage_b();
  o.indexer_mass_topk = 3;
  const TrainBatch batch = random_batch({24, 24, 24, 24});
  LossReport first, last;
  for (int i = 0; i < 120; ++i) {
    last = train_pass(e, model, batch, o, 1000);
    if (i == 0) first = last;
    optimizer.step(plain, 1e-2, optimizer.grad_norm(plain));
    model.weights.pack(plain, true);
  }
  CHECK(last.mean_kl() < first.mean_kl() / 2);
  CHECK(last.mean_mass() > first.mean_mass());
  CHECK(last.lm == first.lm);  // the main model did not move
}

}  // namespace
}  // namespace fathom
