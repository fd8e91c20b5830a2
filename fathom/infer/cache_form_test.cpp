// Key caches in bf16, FP8 and integer codes: their layouts, and that what they hold is what the FP8
// path computes.
#include <doctest/doctest.h>

#include <cmath>

#include "fathom/infer/infer_testing.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/ops/basic.h"

namespace fathom {
namespace {

using testing::Machine;
using testing::Outcome;

// Logits of a text, the keys in a cache of that form (or none), cut into pieces of `piece` tokens.
std::vector<float> logits_of(Machine& m, const Model& model, const std::vector<int32_t>& text,
                             Numerics numerics, KvCache* cache, int64_t piece) {
  std::vector<float> out;
  const auto size = std::ssize(text);
  for (int64_t begin = 0; begin < size; begin += piece) {
    Step step;
    step.numerics = numerics;
    step.selection = usable_selection(model.config, KeySelection::kSparse);
    step.add_sequence({text.begin() + begin, text.begin() + std::min(begin + piece, size)}, begin);
    if (cache) {
      step.cache.cache = cache;
      step.cache.first_page = {0};
      for (int32_t p = 0; p < 3; ++p) step.cache.page.push_back(2 - p);
    }
    const Value y = logits(m.ctx, model, forward(m.ctx, model, step).hidden_TD);
    out.insert(out.end(), y->as<float>(), y->as<float>() + y->numel());
  }
  return out;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error2 = 0, size2 = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error2 += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size2 += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error2 / size2);
}

}  // namespace

TEST_CASE("the FP8 cache keeps the latents and index keys of the simulated FP8 path to the bit") {
  for (const char* name : {"v32-tiny-fp8", "v32-tiny-fp8-ue8m0", "v32-tiny"}) {
    CAPTURE(name);
    Machine m(2, cpu_ref());  // others add up bf16 latents in an order of their own
    const Model model = load_model(m.ctx, std::string("tests/golden/") + name, WeightUse::kServe);
    const auto text = testing::random_tokens(model.config, 130, 3);
    // bf16 holds every value of that path exactly, the rotary key apart, which both round to bf16.
    KvCache wide(m.arena, model.config, 3, CacheForm::kBF16);
    const auto want = logits_of(m, model, text, Numerics::kFp8Cache, &wide, 130);
    for (const int64_t piece : {130, 50, 1}) {
      KvCache cache(m.arena, model.config, 3, CacheForm::kFp8);
      CHECK(
          Outcome::same_bits(logits_of(m, model, text, Numerics::kFp8Cache, &cache, piece), want));
    }
    // Rounding moves a choice of keys or experts here and there, so only the bulk stays close.
    const auto exact = logits_of(m, model, text, Numerics::kFp8Cache, nullptr, 130);
    CHECK(relative_error(want, exact) < 0.5);
    KvCache unrounded(m.arena, model.config, 3, CacheForm::kFp8);
    const auto coded = logits_of(m, model, text, Numerics::kExact, &unrounded, 130);
    const auto plain = logits_of(m, model, text, Numerics::kExact, nullptr, 130);
    CHECK(relative_error(coded, plain) < 0.5);
    CHECK(relative_error(coded, plain) > 0);
  }
}

TEST_CASE("a finished text has equal bits in one pass and token by token, whatever the cache") {
  for (const char* name : {"v32-tiny", "v32-tiny-fp8"}) {
    CAPTURE(name);
    Machine m(2);
    const Model model = load_model(m.ctx, std::string("tests/golden/") + name, WeightUse::kServe);
    const auto text = testing::random_tokens(model.config, 150, 3);
    const auto plain = logits_of(m, model, text, Numerics::kExact, nullptr, 150);
    for (const CacheForm form : kCacheForms) {
      CAPTURE(cache_form_name(form));
      KvCache whole(m.arena, model.config, 3, form);
      const auto want = logits_of(m, model, text, Numerics::kExact, &whole, 150);
      for (const int64_t piece : {70, 1}) {
        KvCache cache(m.arena, model.config, 3, form);
        CHECK(Outcome::same_bits(logits_of(m, model, text, Numerics::kExact, &cache, piece), want));
      }
      CHECK(Outcome::same_bits(plain, want) == (form == CacheForm::kF32));
    }
  }
}

TEST_CASE("the vector kernels read a coded cache as the reference does") {
  Machine m(2);
  const Model model = load_model(m.ctx, "tests/golden/v32-tiny", WeightUse::kServe);
  const auto text = testing::random_tokens(model.config, 100, 5);
  const Ctx slow_ctx{.kernels = cpu_ref(), .pool = m.pool, .arena = m.arena};
  for (const CacheForm form : kCacheForms) {
    CAPTURE(cache_form_name(form));
    KvCache fast(m.arena, model.config, 3, form), slow(m.arena, model.config, 3, form);
    const Model again = load_model(slow_ctx, "tests/golden/v32-tiny", WeightUse::kServe);
    const auto got = logits_of(m, model, text, Numerics::kExact, &fast, 100);
    Step step;
    step.selection = KeySelection::kSparse;
    step.add_sequence(text);
    step.cache.cache = &slow;
    step.cache.first_page = {0};
    step.cache.page = {2, 1, 0};
    Ctx ctx = slow_ctx;
    const Value want = logits(ctx, again, forward(ctx, again, step).hidden_TD);
    const std::vector<float> reference(want->as<float>(), want->as<float>() + want->numel());
    // Queries in codes move a choice of keys or experts here and there.
    CHECK(relative_error(got, reference) < (form == CacheForm::kInt8Latent ? 1e-2 : 1e-3));
  }
}

TEST_CASE("rows of V3.2's caches take 656 and 132 bytes, and every form answers alike") {
  const ModelConfig v32 = read_config("tests/configs/deepseek-v3.2.json");
  CHECK(latent_bytes(v32, CacheForm::kFp8) == 656);
  CHECK(index_bytes(v32, CacheForm::kFp8) == 132);
  CHECK(index_bytes(v32, CacheForm::kInt8) == 132);
  CHECK(latent_bytes(v32, CacheForm::kInt8Latent) == 656);
  CHECK(index_bytes(v32, CacheForm::kInt8Latent) == 132);
  Machine m(2);
  const ModelConfig config = testing::family_config("v32-tiny");
  const Model model = testing::make_model(m, config);
  const KvCache cache(m.arena, config, 2, CacheForm::kFp8);
  CHECK(cache.bytes_per_token() == cache_bytes_per_token(config, CacheForm::kFp8));
  // Rows alone, in a batch and from a shared prefix: equal bits whatever the form.
  for (const CacheForm form : kCacheForms) {
    const std::vector<Request> requests = testing::mixed_requests(config, 4);
    std::vector<Outcome> alone;
    for (const Request& r : requests) {
      Engine one(m.ctx, model, {.num_pages = 32, .max_step_tokens = 7, .cache = form});
      alone.push_back(testing::run_all(one, {r}).front());
    }
    Engine all(m.ctx, model, {.num_pages = 32, .max_step_tokens = 80, .cache = form});
    CHECK(testing::run_all(all, requests) == alone);
    CHECK(testing::run_all(all, requests) == alone);  // prefixes are shared now
  }
}

}  // namespace fathom
