#include "fathom/rl/critic.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>

#include "fathom/rl/policy_testing.h"
#include "fathom/rl/reward_model_stage.h"

namespace fathom {
namespace {

using namespace testing;
using Machine = testing::Engine;

std::vector<Rollout> rewarded_rollouts() {
  const ModelConfig c = nano_config();
  std::vector<Rollout> out = {random_rollout(c, 3, 5, 1), random_rollout(c, 2, 7, 2),
                              random_rollout(c, 4, 2, 3)};
  for (size_t i = 0; i < out.size(); ++i) out[i].reward = static_cast<double>(i) - 1;
  return out;
}

std::vector<PolicySample> samples_of(const std::vector<Rollout>& rollouts) {
  std::vector<PolicySample> out;
  for (const Rollout& r : rollouts) out.push_back({.rollout = &r});
  return out;
}

TEST_CASE("a new critic says 0, so that advantages are the rewards to come; then it learns") {
  Machine m(DType::kF32);
  const Ctx ctx = m.ctx();
  const Model policy = random_model(ctx, nano_config(), 5);
  const auto comm = make_single_comm();
  Critic critic(ctx, policy, {.critic_learning_rate = 1e-2}, {.weight_decay = 0}, 100, *comm);
  const std::vector<Rollout> rollouts = rewarded_rollouts();
  std::vector<PolicySample> samples = samples_of(rollouts);
  critic.judge(samples);
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t t = 0; t < rollouts[i].sampled.size(); ++t)
      CHECK(samples[i].token_advantage[t] == (rollouts[i].sampled[t] ? rollouts[i].reward : 0));
  for (int i = 0; i < 60; ++i) {
    if (i % 5 == 0) critic.judge(samples);
    critic.update(samples);
  }
  critic.judge(samples);
  CHECK(critic.update(samples).explained_variance() > 0.8);
  const Model untouched = random_model(ctx, nano_config(), 5);
  for (size_t k = 0; k < policy.weights.params.size(); ++k)
    CHECK(same_bits(policy.weights.params[k].value, untouched.weights.params[k].value));
}

TEST_CASE("a critic that was saved and loaded goes on with the same bits") {
  Machine m(DType::kF32);
  const Ctx ctx = m.ctx();
  const Model policy = random_model(ctx, nano_config(), 5);
  const auto comm = make_single_comm();
  const CriticOptions options{.critic_learning_rate = 1e-2};
  Critic first(ctx, policy, options, {}, 100, *comm), second(ctx, policy, options, {}, 100, *comm);
  const std::vector<Rollout> rollouts = rewarded_rollouts();
  std::vector<PolicySample> samples = samples_of(rollouts);
  for (int i = 0; i < 3; ++i) {
    first.judge(samples);
    first.update(samples);
  }
  char name[] = "/tmp/fathom_critic_XXXXXX";
  REQUIRE(mkdtemp(name));
  first.save(std::string(name) + "/critic");
  second.load(std::string(name) + "/critic");
  std::filesystem::remove_all(name);
  for (Critic* c : {&first, &second}) {
    c->judge(samples);
    c->update(samples);
  }
  for (size_t k = 0; k < first.model().model.weights.params.size(); ++k)
    CHECK(same_bits(first.model().model.weights.params[k].value,
                    second.model().model.weights.params[k].value));
}

TEST_CASE(
    "preference pairs: the better answer first, equal and broken ones left out, noise turns") {
  std::vector<Rollout> group = rewarded_rollouts();
  group.push_back(group[0]);
  group.push_back(group[1]);
  group.back().stop = StopReason::kError;
  const std::vector<PreferencePair> pairs = preference_pairs(group, 0, 1);
  REQUIRE(pairs.size() == 5);  // of rewards -1, 0, 1, -1: all but the two equal ones
  for (const PreferencePair& p : pairs) {
    const auto reward = [&](const std::vector<int32_t>& tokens) {
      for (const Rollout& r : group)
        if (r.tokens == tokens) return r.reward;
      return -9.0;
    };
    CHECK(reward(p.chosen) > reward(p.rejected));
  }
  const std::vector<PreferencePair> turned = preference_pairs(group, 1, 1);
  REQUIRE(turned.size() == 5);
  for (size_t i = 0; i < 5; ++i) CHECK(turned[i].chosen == pairs[i].rejected);
  CHECK(preference_pairs({}, 0, 1).empty());
}

}  // namespace
}  // namespace fathom
