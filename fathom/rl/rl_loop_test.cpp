// The parts of the loop: where rollouts come from, copies of weights, a step's preparation, alarms.
// The whole loop, killed and resumed, is tested by tests/train/kill_resume.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "fathom/comm/comm_testing.h"
#include "fathom/rl/rl_figures.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/rl/rl_testing.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/train/recipe.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

Tokenizer small_tokenizer() {
  BpeTrainOptions o{.vocab_size = 290};
  for (const std::string_view t : kChatSpecialTokens) o.special_tokens.emplace_back(t);
  BpeTrainer trainer(o);
  trainer.add("1+2=3");
  return Tokenizer::from_json(trainer.train(), "test");
}

RlOptions small_options() {
  RlOptions o;
  o.tasks.problems = {"addition:1-1"};
  o.rollout.group_size = 3;
  o.rollout.max_response_tokens = 8;
  o.reward.rewards = {"truncation"};  // a random model earns it now and then
  o.loop.prompts = 2;
  return o;
}

struct Fixture {
  testing::Machine m;
  ModelConfig config = testing::family_config("v32-nano");
  Tokenizer tokenizer = small_tokenizer();
  Model model;
  Fixture() {
    config.vocab_size = tokenizer.vocab_size();
    model = testing::make_model(m, config, WeightUse::kTrain);
  }
  RolloutSource source(const RlOptions& o, int64_t version = 0) {
    return RolloutSource(m.ctx, model, tokenizer, o, version);
  }
  PreparedStep prepare(const RolloutBatch& batch, const RlOptions& o, int64_t version) {
    return prepare_step(m.ctx, model, nullptr, batch.rollouts, o, version, 4096);
  }
};

std::set<int32_t> versions(const RolloutBatch& batch) {
  std::set<int32_t> out;
  for (const Rollout& r : batch.rollouts)
    out.insert(r.weight_version.begin(), r.weight_version.end());
  return out;
}

TEST_CASE("a batch is whole groups, scored, whose answers tell whether they are right") {
  Fixture f;
  RolloutSource source = f.source(small_options());
  const RolloutBatch batch = source.next(1);
  REQUIRE(batch.rollouts.size() == 6);
  CHECK(groups_of(batch.rollouts).size() == 2);
  for (const Rollout& r : batch.rollouts) {
    CHECK(r.step == 1);
    CHECK(r.rewards.size() == 2);  // truncation, and whether it is right
    CHECK(answer_right(r) == 0);
  }
}

// Gradients of all parameters and what the pass reports, as numbers.
std::vector<double> update_of(std::span<const Rollout> rollouts, Comm& comm) {
  Fixture f;
  RlOptions o = small_options();
  o.policy = policy_preset("v32");
  set_trainable(f.model, "policy");
  PreparedStep p = prepare_step(f.m.ctx, f.model, nullptr, rollouts, o, 0, 4096);
  for (size_t i = 0; i < p.samples.size(); ++i) {
    p.samples[i].advantage = static_cast<double>(i) - 2.5;
    p.samples[i].ref_logp.assign(p.samples[i].rollout->sampled.size(), -1);
  }
  SharedGradient gradient(f.m.ctx, comm, f.model.weights.params);
  constexpr int64_t kRows = 30;  // of a pass: two answers
  const PolicyReport report =
      run_minibatch(f.m.ctx, f.model, p.samples, p.opsm_delta, o, kRows, gradient);
  std::vector<double> out = {report.objective, report.sum_ratio, report.sum_ref_kl,
                             static_cast<double>(report.terms.size())};
  for (const Param& w : f.model.weights.params)
    for (int64_t i = 0; w.value.has_grad() && i < w.value->numel(); ++i)
      out.push_back(get_element(w.value.grad(), i));
  return out;
}

TEST_CASE("the gradient of the same rollouts has the same bits on any number of ranks") {
  const RolloutBatch batch = Fixture().source(small_options()).next(1);
  const std::vector<double> want = update_of(batch.rollouts, *make_single_comm());
  CHECK(want[3] == 6);
  CHECK(std::ranges::count_if(want, [](double g) { return g != 0; }) > 1000);
  for (const int ranks : {2, 3, 5})
    for (const std::string& said : testing::on_ranks(ranks, [&](Comm& comm) {
           const std::vector<double> got = update_of(batch.rollouts, comm);
           FM_CHECK(got.size() == want.size() &&
                        !std::memcmp(got.data(), want.data(), want.size() * sizeof(double)),
                    "rank {} of {}", comm.rank(), ranks);
         }))
      CHECK(said == std::string());
}

TEST_CASE("a lag gives each step the rollouts of weights so many versions ago") {
  Fixture f;
  RlOptions o = small_options();
  o.loop.lag = 2;
  RolloutSource source = f.source(o);
  CHECK(versions(source.next(1)) == std::set<int32_t>{0});
  source.weights_changed(1);
  CHECK(versions(source.next(2)) == std::set<int32_t>{0});
  source.weights_changed(2);
  CHECK(versions(source.next(3)) == std::set<int32_t>{0});
  source.weights_changed(3);
  CHECK(versions(source.next(4)) == std::set<int32_t>{1});
}

TEST_CASE("dynamic sampling replaces groups of equal rewards, and ends") {
  Fixture f;
  RlOptions o = small_options();
  o.reward.rewards = {"outcome"};  // never right: no group has a signal
  o.loop.dynamic_rounds = 3;
  const RolloutBatch none = f.source(o).next(1);
  CHECK(none.rounds == 3);
  CHECK(none.rollouts.size() == 18);  // all that was seen is kept
  CHECK(f.prepare(none, o, 0).samples.empty());
  o.loop.dynamic_rounds = 0;
  CHECK(f.source(o).next(1).rollouts.size() == 6);
}

TEST_CASE("answers that ended with an error are kept and not learned from") {
  Fixture f;
  const RlOptions o = small_options();
  RolloutBatch batch = f.source(o).next(1);
  batch.rollouts[1].stop = StopReason::kError;
  batch.rollouts[4].stop = StopReason::kUnscored;
  CHECK(f.prepare(batch, o, 0).samples.size() == 4);
}

TEST_CASE("of answers with injected tokens a step counts those that the policy sampled") {
  Fixture f;
  RlOptions o = small_options();
  o.policy = policy_preset("v32");
  o.policy.opsm_delta = "auto:0.5";
  o.policy.kl = "none";
  RolloutBatch batch = f.source(o).next(1);
  int64_t sampled = 0;
  for (size_t i = 0; i < batch.rollouts.size(); ++i) {
    Rollout& r = batch.rollouts[i];
    r.reward = static_cast<double>(i);
    for (size_t t = 1; t < r.sampled.size(); t += 3) {  // as a tool's result would stand there
      r.sampled[t] = 0;
      r.behaviour_logp[t] = 0;
      r.weight_version[t] = -1;
    }
    sampled += r.num_sampled();
  }
  const PreparedStep p = f.prepare(batch, o, 0);
  CHECK(p.fresh);
  CHECK(p.agreement.exact());
  CHECK(p.agreement.num_tok == sampled);
  CHECK(p.opsm_delta == o.policy.opsm_floor);  // all divergences are 0
  const std::unique_ptr<Comm> comm = make_single_comm();
  set_trainable(f.model, "policy");
  SharedGradient gradient(f.m.ctx, *comm, f.model.weights.params);
  const PolicyReport report =
      run_minibatch(f.m.ctx, f.model, p.samples, p.opsm_delta, o, 4096, gradient);
  CHECK(report.num_tok == sampled);
  CHECK(report.max_ratio == 1);
  CHECK(report.min_ratio == 1);
  CHECK(report.sum_divergence == 0);
  CHECK(report.num_masked_seq == 0);
  double objective = 0;  // mean of the advantages, as every ratio is 1
  for (const PolicySample& s : p.samples)
    objective += s.advantage / static_cast<double>(p.samples.size());
  CHECK(report.objective == doctest::Approx(objective));
}

TEST_CASE("what a checkpoint keeps of a source goes on to the same rollouts") {
  Fixture f;
  RlOptions o = small_options();
  o.loop.lag = 1;
  o.loop.extra_groups = 2;
  std::string folder = (std::filesystem::temp_directory_path() / "fathom_rl_XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()));
  RolloutSource alone = f.source(o);
  alone.next(1);
  alone.weights_changed(1);
  alone.save(folder);
  RolloutSource restored = f.source(o, 1);
  restored.load(folder);
  for (int64_t step = 2; step < 5; ++step) {
    const RolloutBatch a = alone.next(step), b = restored.next(step);
    REQUIRE(a.rollouts.size() == b.rollouts.size());
    for (size_t i = 0; i < a.rollouts.size(); ++i)
      CHECK(encode_rollout(a.rollouts[i]) == encode_rollout(b.rollouts[i]));
    alone.weights_changed(step);
    restored.weights_changed(step);
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE(
    "fresh rollouts agree to the last bit and cost no pass; coarser weights show a mismatch") {
  Fixture f;
  RlOptions o = small_options();
  o.policy.opsm_delta = "auto:0.9";
  const RolloutBatch batch = f.source(o).next(1);
  const PreparedStep fresh = f.prepare(batch, o, 0);
  CHECK(fresh.fresh);
  CHECK(fresh.agreement.exact());
  CHECK(fresh.opsm_delta == o.policy.opsm_floor);
  for (const PolicySample& s : fresh.samples)
    CHECK(s.prox_logp ==
          std::vector<double>(s.rollout->behaviour_logp.begin(), s.rollout->behaviour_logp.end()));
  CHECK(!f.prepare(batch, o, 1).fresh);
  double before = 0;
  for (const int64_t bits : {16, 8, 4}) {
    o.loop.rollout_bits = bits;
    const RolloutBatch coarse = f.source(o).next(1);
    const PreparedStep p = f.prepare(coarse, o, 0);
    CHECK(!p.fresh);
    CHECK(p.agreement.mismatch_kl() > before);
    before = p.agreement.mismatch_kl();
  }
}

TEST_CASE("a coarse copy has the asked number of values, and leaves the original alone") {
  Fixture f;
  const View w = f.model.weights.lm_head.value();
  std::vector<float> before(static_cast<size_t>(w.numel()));
  std::memcpy(before.data(), w.data, before.size() * sizeof(float));
  Model copy = copy_weights(f.m.ctx, f.model);
  const View c = copy.weights.lm_head.value();
  CHECK(std::memcmp(c.data, before.data(), before.size() * sizeof(float)) == 0);
  assign_weights(f.m.ctx, f.model, 3, &copy);
  const auto* x = static_cast<const float*>(c.data);
  for (int64_t row = 0; row < c.dim[0]; ++row) {
    std::set<float> magnitudes;
    for (int64_t i = 0; i < c.dim[1]; ++i) magnitudes.insert(std::abs(x[row * c.dim[1] + i]));
    CHECK(magnitudes.size() <= 4);  // 0, 1, 2, 3 steps
    CHECK(magnitudes.size() > 1);
  }
  CHECK(std::memcmp(w.data, before.data(), before.size() * sizeof(float)) == 0);
}

TEST_CASE("alarms: a collapse once, a spike against what is usual, groups without a signal") {
  LoopOptions o;
  o.entropy_alarm = 0.1;
  o.gradient_alarm = 10;
  RlAlarms alarms(o, true);
  for (int i = 0; i < 10; ++i) CHECK(alarms.of_update(0.5, 1 + 0.1 * i).empty());
  CHECK(alarms.of_update(0.5, 9).empty());
  REQUIRE(alarms.of_update(0.5, 40).size() == 1);
  const std::vector<std::string> collapse = alarms.of_update(0.05, 1);
  REQUIRE(collapse.size() == 1);
  CHECK(collapse[0].find("entropy collapse") == 0);
  CHECK(alarms.of_update(0.04, 1).empty());
  RlAlarms restored(o, true);
  restored.restore(alarms.state());
  CHECK(restored.of_update(0.04, 1).empty());
  CHECK(alarms.of_update(0.5, 1).empty());
  CHECK(alarms.of_update(0.05, 1).size() == 1);

  Fixture f;
  RlOptions options = small_options();
  options.reward.rewards = {"outcome"};
  const RolloutBatch batch = f.source(options).next(1);
  PreparedStep p = f.prepare(batch, options, 0);
  RlStepFigures figures{.batch = &batch, .prepared = &p};
  REQUIRE(alarms.of_rollouts(figures).size() == 1);
  CHECK(alarms.of_rollouts(figures)[0].find("equal rewards") != std::string::npos);
  CHECK(RlAlarms(o, false).of_rollouts(figures).empty());
  --p.agreement.logp_equal;
  CHECK(alarms.of_rollouts(figures).size() == 2);
}

TEST_CASE(
    "options of a stage: presets first, own keys after, unknown and impossible ones refused") {
  RlOptions o = small_options();
  check_rl_options(o);
  OptionSet set;
  StageRecipe stage;
  const auto kind = std::ranges::find(rl_stage_kinds(), "rl", &StageKind::name);
  REQUIRE(kind != rl_stage_kinds().end());
  stage.program = kind->make();
  stage.program->defaults("dapo", &stage);
  stage.fields(set);
  std::set<std::string> names;
  for (const Option& option : set.all()) CHECK(names.insert(option.name).second);  // flat
  for (const auto& [key, value] : set.values())
    if (key == "aggregation") CHECK(value == "token");
  CHECK_THROWS_AS(stage.program->defaults("daop", &stage), Error);
  const auto broken = [&](auto damage) {
    RlOptions bad = small_options();
    damage(bad);
    CHECK_THROWS_AS(check_rl_options(bad), Error);
  };
  broken([](RlOptions& b) { b.loop.rollout_bits = 9; });
  broken([](RlOptions& b) { b.loop.prompts = 0; });
  broken([](RlOptions& b) { b.rollout.temperature = 0; });
  broken([](RlOptions& b) { b.tasks.problems = {"nothing"}; });
  broken([](RlOptions& b) { b.reward.rewards = {"nothing"}; });
}

}  // namespace
}  // namespace fathom
