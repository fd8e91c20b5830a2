// Speculation changes how many steps a text takes, nothing else.
#include "fathom/infer/speculative.h"

#include <doctest/doctest.h>

#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

using testing::family_config;
using testing::Machine;
using testing::mixed_requests;
using testing::Outcome;
using testing::run_all;

Model guessable(Machine& m, const ModelConfig& c, float share) {
  testing::EasyToGuess source(m.arena, c, 1, share);
  return {c, load_weights(m.ctx, c, source, WeightUse::kServe)};
}

TEST_CASE("guesses leave every token and log-prob as it was, greedy and sampled") {
  for (const char* family : {"v32-nano", "v3-tiny", "glm-dsa-tiny"}) {
    const ModelConfig c = family_config(family);
    for (const float share : {0.0f, 0.05f, 1.0f}) {
      Machine m;
      const Model model = guessable(m, c, share);
      const auto requests = mixed_requests(c, 30);
      Engine plain(m.ctx, model, {.num_pages = 64});
      const std::vector<Outcome> want = run_all(plain, requests);
      for (const int64_t num_drafts : {1, 2, 3}) {
        CAPTURE(family);
        CAPTURE(share);
        CAPTURE(num_drafts);
        Engine fast(m.ctx, model, {.num_pages = 64, .num_drafts = num_drafts});
        CHECK(run_all(fast, requests) == want);
        const EngineStats s = fast.stats();
        CHECK(s.num_drafted > 0);
        if (share == 0) CHECK(s.acceptance() > 0.9);
        if (share == 0) CHECK(s.num_steps < plain.stats().num_steps);
        fast.clear_prefixes();
        CHECK(fast.num_free_pages() == 64);
      }
    }
  }
}

TEST_CASE("guesses survive cutting, preemption, shared prefixes and stop tokens") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = guessable(m, c, 0.05f);
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 5; ++i) {
    requests.push_back({.prompt = testing::random_tokens(c, 64, i / 2)});
    requests.back().params = {
        .temperature = i % 2 ? 1.0 : 0.0, .seed = i, .max_tokens = 80, .stop_ids = {3}};
  }
  Engine plain(m.ctx, model, {.num_pages = 64, .prefix_cache = false});
  const std::vector<Outcome> want = run_all(plain, requests);
  for (const int64_t rows : {1, 50, 512}) {
    Engine fast(m.ctx, model,
                {.num_pages = 6, .max_step_tokens = rows, .max_context = 160, .num_drafts = 2});
    CHECK(run_all(fast, requests) == want);
    CHECK(run_all(fast, requests) == want);
    CHECK(fast.stats().num_accepted > 0);
    fast.clear_prefixes();
    CHECK(fast.num_free_pages() == 6);
  }
}

// Steps until guessing ends, of `num_steps`; a step with guesses takes `price` as long and gives
// `tokens` on average.
int64_t steps_until_over(double price, double tokens, int64_t num_steps) {
  DraftRule rule;
  double owed = 0;
  for (int64_t i = 0; i < num_steps; ++i) {
    if (rule.over()) return i;
    const double hiccup = i % 10 == 3 ? 20 : 1;  // another process
    if (!rule.guesses()) {
      rule.count(false, 4, 4, 1e-3 * hiccup);
      continue;
    }
    owed += 4 * tokens;
    const auto given = static_cast<int64_t>(owed);
    owed -= static_cast<double>(given);
    rule.count(true, 4, given, 1e-3 * price * hiccup);
  }
  return num_steps;
}

TEST_CASE("guessing goes on exactly where it pays") {
  const int64_t two_trials = 2 * (DraftRule::kTrial + DraftRule::kPlain);
  CHECK(steps_until_over(1.5, 1.4, 1000) == two_trials);
  CHECK(steps_until_over(1.5, 1.6, 5000) == 5000);
  CHECK(steps_until_over(2.0, 1.9, 1000) == two_trials);
  CHECK(steps_until_over(1.05, 1.1, 5000) == 5000);
}

TEST_CASE("guesses that have to pay leave tokens and log-probs as they were") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  for (const float share : {0.0f, 1.0f}) {
    const Model model = guessable(m, c, share);
    const auto requests = mixed_requests(c, 120);
    Engine plain(m.ctx, model, {.num_pages = 64});
    const std::vector<Outcome> want = run_all(plain, requests);
    Engine fast(m.ctx, model, {.num_pages = 64, .num_drafts = 2, .drafts_must_pay = true});
    CHECK(run_all(fast, requests) == want);
    CHECK(fast.stats().num_drafted > 0);
  }
}

TEST_CASE("speculation without a prediction layer is refused") {
  const ModelConfig c = family_config("kimi-tiny");
  Machine m;
  const Model model = testing::make_model(m, c);
  CHECK_THROWS_AS(Engine(m.ctx, model, {.num_drafts = 1}), Error);
}

}  // namespace
}  // namespace fathom
