// The engine against the training forward and against itself: the same bits however a request was
// batched, cut, preempted, shared or spread over threads.
#include "fathom/infer/engine.h"

#include <algorithm>

#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

using testing::family_config;
using testing::kFamilies;
using testing::Machine;
using testing::make_model;
using testing::mixed_requests;
using testing::Outcome;
using testing::random_tokens;
using testing::run_all;

std::vector<KeySelection> selections(const ModelConfig& c) {
  if (c.has_dsa()) return {KeySelection::kSparse, KeySelection::kDense};
  return {KeySelection::kDense};
}

TEST_CASE("log-probs recorded while sampling are those of the training forward, bit for bit") {
  for (const char* family : kFamilies) {
    const ModelConfig c = family_config(family);
    Machine m;
    const Model served = make_model(m, c);
    const Model trained = make_model(m, c, WeightUse::kTrain);
    for (const KeySelection selection : selections(c)) {
      CAPTURE(family);
      CAPTURE(static_cast<int>(selection));
      const auto requests = mixed_requests(c, 8);
      Engine engine(m.ctx, served, {.num_pages = 64, .selection = selection});
      const std::vector<Outcome> got = run_all(engine, requests);
      const auto texts = testing::finished_texts(requests, got);
      const auto want = testing::training_logp(m, trained, texts, selection);
      const auto scored = score(m.ctx, served, texts, selection);
      for (size_t i = 0; i < requests.size(); ++i) {
        CAPTURE(i);
        CHECK(got[i].finished == FinishReason::kLength);
        REQUIRE(got[i].tokens.size() == static_cast<size_t>(requests[i].params.max_tokens));
        CHECK(Outcome::same_bits(got[i].logp, testing::tail(want[i], got[i].tokens.size())));
        CHECK(Outcome::same_bits(scored[i], want[i]));
      }
      engine.clear_prefixes();
      CHECK(engine.num_free_pages() == 64);
    }
  }
}

TEST_CASE("a request gets the same whatever its company, its cutting and the threads") {
  for (const char* family : {"v32-nano", "v2lite-tiny", "glm-dsa-tiny"}) {
    CAPTURE(family);
    const ModelConfig c = family_config(family);
    Machine one(1), two(2);
    const Model model = make_model(one, c);
    const auto requests = mixed_requests(c, 6);
    Engine together(one.ctx, model, {.num_pages = 64});
    const std::vector<Outcome> want = run_all(together, requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      Engine alone(one.ctx, model, {.num_pages = 8});
      CAPTURE(i);
      CHECK(run_all(alone, {requests[i]})[0] == want[i]);
    }
    for (const int64_t rows : {1, 2, 7, 63, 64, 65, 100}) {
      CAPTURE(rows);
      Engine cut(two.ctx, model, {.num_pages = 64, .max_step_tokens = rows});
      CHECK(run_all(cut, requests) == want);
    }
    Engine few(two.ctx, model, {.num_pages = 64, .max_sequences = 2});
    CHECK(run_all(few, requests) == want);
  }
}

TEST_CASE("requests that arrive while others run change nothing") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = make_model(m, c);
  const auto requests = mixed_requests(c, 9);
  Engine calm(m.ctx, model, {.num_pages = 64});
  const std::vector<Outcome> want = run_all(calm, requests);
  Engine busy(m.ctx, model, {.num_pages = 64, .max_step_tokens = 40});
  std::map<SequenceId, Outcome> got;
  for (const Request& r : requests) {
    busy.add(r);
    testing::take(got, busy.step());
    testing::take(got, busy.step());
  }
  while (!busy.idle()) testing::take(got, busy.step());
  for (size_t i = 0; i < requests.size(); ++i) CHECK(got[static_cast<SequenceId>(i)] == want[i]);
}

TEST_CASE("too few pages preempt and recompute; the results stay") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = make_model(m, c);
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 5; ++i) {
    requests.push_back({.prompt = random_tokens(c, 60, i)});
    requests.back().params = {.seed = i, .max_tokens = 90};
  }
  Engine roomy(m.ctx, model, {.num_pages = 64});
  const std::vector<Outcome> want = run_all(roomy, requests);
  CHECK(roomy.stats().num_preempted == 0);
  for (const bool prefix_cache : {false, true}) {
    CAPTURE(prefix_cache);
    Engine tight(m.ctx, model, {.num_pages = 7, .max_context = 192, .prefix_cache = prefix_cache});
    CHECK(run_all(tight, requests) == want);
    CHECK(tight.stats().num_preempted > 0);
    tight.clear_prefixes();
    CHECK(tight.num_free_pages() == 7);
  }
}

TEST_CASE("equal beginnings are computed once and change nothing") {
  for (const char* family : {"v32-nano", "moonlight-tiny"}) {
    const ModelConfig c = family_config(family);
    Machine m;
    const Model model = make_model(m, c);
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 6; ++i) {
      std::vector<int32_t> prompt = random_tokens(c, 128, 1);  // exactly two pages
      const auto own = random_tokens(c, i < 3 ? 0 : static_cast<int64_t>(20 * i), 50 + i);
      prompt.insert(prompt.end(), own.begin(), own.end());
      requests.push_back({.prompt = std::move(prompt)});
      requests.back().params = {.seed = i, .max_tokens = 5};
    }
    Engine plain(m.ctx, model, {.num_pages = 64, .prefix_cache = false});
    const std::vector<Outcome> want = run_all(plain, requests);
    CHECK(plain.stats().num_reused_tok == 0);
    Engine shared(m.ctx, model, {.num_pages = 64});
    CHECK(run_all(shared, requests) == want);
    // Two more find all of it but the last token, which is computed for its logits.
    CHECK(shared.stats().num_reused_tok == 2 * 127 + 3 * 128);
    CHECK(run_all(shared, requests) == want);
    shared.clear_prefixes();
    CHECK(shared.num_free_pages() == 64);
    // With hardly a page to spare for the copy.
    for (const int64_t num_pages : {3, 4}) {
      Engine tight(m.ctx, model, {.num_pages = num_pages});
      const std::vector<Request> two = {requests[0], requests[1]};
      CHECK(run_all(tight, two) == std::vector<Outcome>{want[0], want[1]});
    }
  }
}

TEST_CASE(
    "routing and selection are recorded for every forwarded token, shared prefixes included") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = make_model(m, c);
  std::vector<Request> requests = mixed_requests(c, 4);
  requests.push_back(requests.back());  // finds the prefix of its twin
  Engine engine(m.ctx, model, {.num_pages = 64, .record_routing = true});
  const std::vector<Outcome> got = run_all(engine, requests);
  CHECK(engine.stats().num_reused_tok > 0);
  const auto texts = testing::finished_texts(requests, got);
  for (size_t i = 0; i < texts.size(); ++i) {
    Step step;
    step.add_sequence({texts[i].begin(), texts[i].end() - 1});
    const StepOut out = forward(m.ctx, model, step);
    REQUIRE(got[i].routing);
    const RoutingRecord& r = *got[i].routing;
    REQUIRE(r.num_rows == step.num_rows());
    REQUIRE(r.layers == moe_layers(c));
    REQUIRE(r.indexer_layers == indexer_layers(c));
    size_t at = 0, picked = 0;
    for (int64_t t = 0; t < r.num_rows; ++t)
      for (const int64_t layer : r.indexer_layers)
        REQUIRE(r.selection[picked++] ==
                selection_fingerprint(
                    {out.layers[static_cast<size_t>(layer)].sel_TK.as<int32_t>() + t * c.index_topk,
                     static_cast<size_t>(c.index_topk)}));
    for (int64_t t = 0; t < r.num_rows; ++t)
      for (const int64_t layer : r.layers)
        for (int64_t a = 0; a < c.num_experts_per_tok; ++a)
          REQUIRE(r.experts[at++] ==
                  out.layers[static_cast<size_t>(layer)]
                      .routing->experts_TA.as<int32_t>()[t * c.num_experts_per_tok + a]);
  }
}

TEST_CASE("stop tokens end a text and belong to it") {
  const ModelConfig c = family_config("v3-tiny");
  Machine m;
  const Model model = make_model(m, c);
  Request r{.prompt = random_tokens(c, 9, 1)};
  r.params = {.seed = 3, .max_tokens = 20};
  Engine engine(m.ctx, model, {.num_pages = 8});
  const Outcome whole = run_all(engine, {r})[0];
  r.params.stop_ids = {whole.tokens[11]};
  const Outcome cut = run_all(engine, {r})[0];
  CHECK(cut.finished == FinishReason::kStop);
  const auto first = std::ranges::find(whole.tokens, whole.tokens[11]);
  CHECK(cut.tokens == std::vector<int32_t>(whole.tokens.begin(), first + 1));
}

TEST_CASE("cancelled requests end, the others do not notice, pages come back") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = make_model(m, c);
  const auto requests = mixed_requests(c, 10);
  Engine calm(m.ctx, model, {.num_pages = 64});
  const std::vector<Outcome> want = run_all(calm, requests);
  Engine engine(m.ctx, model, {.num_pages = 64});
  for (const Request& r : requests) engine.add(r);
  std::map<SequenceId, Outcome> got;
  for (int i = 0; i < 4; ++i) testing::take(got, engine.step());
  CHECK(engine.cancel(2));
  CHECK(!engine.cancel(2));
  CHECK(!engine.cancel(99));
  while (!engine.idle()) testing::take(got, engine.step());
  CHECK(got[2].finished == FinishReason::kCancelled);
  CHECK(got[2].tokens.size() < want[2].tokens.size());
  for (const size_t i : {0u, 1u, 3u, 4u, 5u}) CHECK(got[static_cast<SequenceId>(i)] == want[i]);
  engine.clear_prefixes();
  CHECK(engine.num_free_pages() == 64);
}

TEST_CASE("changed weights are used at once, also for keys that were there") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  Model model = make_model(m, c, WeightUse::kTrain);
  const Model other = make_model(m, c, WeightUse::kServe, 2);
  Request r{.prompt = random_tokens(c, 100, 1)};
  r.params.max_tokens = 12;
  Engine engine(m.ctx, model, {.num_pages = 8});
  engine.add(r);
  std::vector<int32_t> text = r.prompt;
  for (int i = 0; i < 5; ++i) text.push_back(engine.step().at(0).token);
  const auto source = random_source(m.arena, c, 2);
  for (Param& p : model.weights.params) {
    const View& v = p.value;
    std::vector<int64_t> shape(v.dim, v.dim + v.rank);
    Tensor scale;
    copy(source->find(p.name, shape, &scale), v);
  }
  model.weights.pack(m.ctx, true);
  engine.weights_changed(7);
  std::vector<float> logp;
  while (!engine.idle())
    for (const Event& e : engine.step()) {
      CHECK(e.weight_version == 7);
      text.push_back(e.token);
      logp.push_back(e.logp);
    }
  CHECK(logp.size() == 7);
  CHECK(Outcome::same_bits(logp, testing::tail(score(m.ctx, other, {text})[0], 7)));
}

TEST_CASE("logits that are not finite end their sequence only") {
  const ModelConfig c = family_config("v3-tiny");
  Machine m;
  const Model model = make_model(m, c);
  const int32_t bad = 5;
  Tensor table = Tensor(model.weights.embed_tokens.view(), nullptr);
  table.as<float>()[bad * c.hidden_size] = std::numeric_limits<float>::quiet_NaN();
  Request good{.prompt = {1, 2, 3}}, poisoned{.prompt = {1, bad, 3}};
  good.params = {.temperature = 0, .max_tokens = 3};
  Engine engine(m.ctx, model, {.num_pages = 8});
  const SequenceId a = engine.add(good), b = engine.add(poisoned);
  const std::vector<Event> events = engine.step();
  REQUIRE(events.size() == 2);
  CHECK(events[0].id == a);
  CHECK(events[0].finished == FinishReason::kNone);
  CHECK(events[1].id == b);
  CHECK(events[1].finished == FinishReason::kError);
  CHECK(events[1].error.find("finite") != std::string::npos);
  CHECK(engine.cancel(a));
  engine.step();
  CHECK(engine.num_free_pages() == 7);  // the good rows stay known
  engine.clear_prefixes();
  CHECK(engine.num_free_pages() == 8);
}

TEST_CASE("requests that can never run are refused, limits end a text") {
  const ModelConfig c = family_config("v3-tiny");
  Machine m;
  const Model model = make_model(m, c);
  Engine engine(m.ctx, model, {.num_pages = 2});
  CHECK(engine.max_context() == 128);
  CHECK_THROWS_AS(engine.add({}), Error);
  CHECK_THROWS_AS(engine.add({.prompt = {0, 9999}}), Error);
  CHECK_THROWS_AS(engine.add({.prompt = {-1}}), Error);
  CHECK_THROWS_AS(engine.add({.prompt = random_tokens(c, 128, 1)}), Error);
  CHECK_THROWS_AS(engine.add({.prompt = {1}, .params = {.top_p = 0}}), Error);
  CHECK_THROWS_AS(Engine(m.ctx, model, {.num_pages = 0}), Error);
  const auto got = run_all(
      engine, {{.prompt = random_tokens(c, 100, 1)}, {.prompt = {1}, .params = {.max_tokens = 0}}});
  CHECK(got[0].tokens.size() == 28);
  CHECK(got[0].finished == FinishReason::kLength);
  CHECK(got[1].tokens.empty());
  CHECK(got[1].finished == FinishReason::kLength);
}

TEST_CASE("steady decoding asks the kernel for no memory") {
  const ModelConfig c = family_config("v32-nano");
  Machine m;
  const Model model = make_model(m, c);
  Request r{.prompt = random_tokens(c, 70, 1)};
  r.params.max_tokens = 100;
  Engine engine(m.ctx, model, {.num_pages = 8});
  engine.add(r);
  for (int i = 0; i < 5; ++i) engine.step();
  const int64_t before = m.arena.stats().kernel_requests;
  for (int i = 0; i < 50; ++i) engine.step();
  CHECK(m.arena.stats().kernel_requests == before);
}

}  // namespace
}  // namespace fathom
