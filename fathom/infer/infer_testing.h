// Helpers of the tests of infer/: small random models of every family, requests, and the training
// forward to compare with.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/infer/engine.h"
#include "fathom/ops/loss.h"

namespace fathom::testing {

inline const char* const kFamilies[] = {"v32-nano",       "v32-tiny",  "v3-tiny",     "v2lite-tiny",
                                        "moonlight-tiny", "kimi-tiny", "glm-dsa-tiny"};

inline ModelConfig family_config(const std::string& family) {
  ModelConfig c = read_config("tests/golden/" + family + "/config.json");
  c.initializer_range = 0.25;  // far from uniform, so that every bit of the model shows
  c.max_position_embeddings = 512;
  return c;
}

// Threads, memory and a Ctx for one model.
struct Machine {
  ThreadPool pool;
  Arena arena;
  Ctx ctx;
  explicit Machine(int num_threads = 1, const Kernels& kernels = cpu_simd())
      : pool(num_threads), ctx{.kernels = kernels, .pool = pool, .arena = arena} {}
};

// Multi-token prediction that guesses well: what blocks add to the residual stream is scaled by
// `share`, and eh_proj passes the embedding on. At 0 model and guesser compute the same.
class EasyToGuess final : public WeightSource {
 public:
  EasyToGuess(Arena& arena, const ModelConfig& config, uint64_t seed, float share)
      : random_(random_source(arena, config, seed)), share_(share) {}

  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor* scale) override {
    const Tensor t = random_->find(name, shape, scale);
    const auto ends = [&](const char* end) { return name.ends_with(end); };
    float* x = t.as<float>();
    if (ends("o_proj.weight") || ends("down_proj.weight"))
      for (int64_t i = 0; i < t.view.numel(); ++i) x[i] *= share_;
    if (ends("eh_proj.weight"))
      for (int64_t i = 0; i < shape[0]; ++i)
        for (int64_t j = 0; j < shape[1]; ++j) x[i * shape[1] + j] = i == j ? 1.0f : 0.0f;
    return t;
  }

 private:
  std::unique_ptr<WeightSource> random_;
  float share_;
};

inline Model make_model(Machine& m, const ModelConfig& config, WeightUse use = WeightUse::kServe,
                        uint64_t seed = 1) {
  const auto source = random_source(m.arena, config, seed);
  return {config, load_weights(m.ctx, config, *source, use)};
}

inline std::vector<int32_t> random_tokens(const ModelConfig& c, int64_t n, uint64_t seed) {
  Rng rng(seed, "test tokens");
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
  return out;
}

// Everything that came of one request.
struct Outcome {
  std::vector<int32_t> tokens;  // generated
  std::vector<float> logp, behaviour;
  FinishReason finished = FinishReason::kNone;
  std::shared_ptr<const RoutingRecord> routing;
  bool operator==(const Outcome& o) const {
    return tokens == o.tokens && finished == o.finished && same_bits(logp, o.logp) &&
           same_bits(behaviour, o.behaviour);
  }
  static bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  }
};

inline void take(std::map<SequenceId, Outcome>& out, const std::vector<Event>& events) {
  for (const Event& e : events) {
    Outcome& o = out[e.id];
    REQUIRE(o.finished == FinishReason::kNone);
    REQUIRE(e.error == "");
    if (e.token >= 0) {
      o.tokens.push_back(e.token);
      o.logp.push_back(e.logp);
      o.behaviour.push_back(e.behaviour_logp);
    }
    o.finished = e.finished;
    if (e.routing) o.routing = e.routing;
  }
}

inline std::vector<Outcome> run_all(Engine& engine, const std::vector<Request>& requests) {
  std::vector<SequenceId> ids;
  for (const Request& r : requests) ids.push_back(engine.add(r));
  std::map<SequenceId, Outcome> out;
  while (!engine.idle()) take(out, engine.step());
  std::vector<Outcome> in_order;
  for (const SequenceId id : ids) in_order.push_back(out[id]);
  return in_order;
}

// A mixed batch: lengths around page boundaries, greedy and sampled, truncated and not.
inline std::vector<Request> mixed_requests(const ModelConfig& c, int64_t max_tokens) {
  std::vector<Request> out;
  const int64_t lengths[] = {1, 5, 63, 64, 65, 130};
  for (size_t i = 0; i < std::size(lengths); ++i) {
    Request r{.prompt = random_tokens(c, lengths[i], 10 + i)};
    r.params.max_tokens = max_tokens + static_cast<int64_t>(i);
    r.params.seed = i;
    if (i % 3 == 0) r.params.temperature = 0;
    if (i == 1) r.params.top_p = 0.8;
    if (i == 4) {
      r.params.temperature = 0.7;
      r.params.top_k = 5;
    }
    out.push_back(std::move(r));
  }
  return out;
}

inline std::vector<std::vector<int32_t>> finished_texts(const std::vector<Request>& requests,
                                                        const std::vector<Outcome>& outcomes) {
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < requests.size(); ++i) {
    texts.push_back(requests[i].prompt);
    texts.back().insert(texts.back().end(), outcomes[i].tokens.begin(), outcomes[i].tokens.end());
  }
  return texts;
}

// Log-probs as training computes them: masters with gradients, a tape, one packed step of all
// texts, the loss op of the trainer. [text][token after the first]
inline std::vector<std::vector<float>> training_logp(Machine& m, const Model& trained,
                                                     const std::vector<std::vector<int32_t>>& texts,
                                                     KeySelection selection) {
  Tape tape;
  Ctx ctx = m.ctx;
  ctx.tape = &tape;
  Step step;
  step.selection = selection;
  std::vector<int32_t> target;
  for (const auto& text : texts) {
    step.add_sequence(text);
    for (size_t i = 0; i < text.size(); ++i)
      target.push_back(i + 1 < text.size() ? text[i + 1] : -1);
  }
  const StepOut out = forward(ctx, trained, step);
  const std::vector<double> weight(target.size(), 1.0 / static_cast<double>(target.size()));
  const HeadLoss loss = head_loss(ctx, out.hidden_TD, trained.weights.lm_head, target, weight);
  tape.clear();
  std::vector<std::vector<float>> logp;
  size_t row = 0;
  for (const auto& text : texts) {
    auto& of_text = logp.emplace_back();
    for (size_t i = 0; i + 1 < text.size(); ++i)
      of_text.push_back(0.0f - static_cast<float>(loss.nll[row + i]));
    row += text.size();
  }
  return logp;
}

inline std::vector<float> tail(const std::vector<float>& v, size_t n) {
  REQUIRE(n <= v.size());
  return {v.end() - static_cast<std::ptrdiff_t>(n), v.end()};
}

}  // namespace fathom::testing
