// Small ops that are joined while nothing is recorded have the bits of separate ones: whole models,
// a prompt and decoded tokens of two sequences, whatever the cache.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

using testing::Machine;

struct Case {
  CacheForm form = CacheForm::kF32;
  Numerics numerics = Numerics::kExact;
  KeySelection selection = KeySelection::kSparse;
};

// Everything that two sequences leave behind: numbers of all logits, then the bytes of the cache.
struct Trace {
  std::vector<float> logits;
  std::vector<std::byte> cache;
  void add(const View& v) { logits.insert(logits.end(), v.as<float>(), v.as<float>() + v.numel()); }
};

constexpr int64_t kPages = 5;

Trace trace(Machine& m, const Model& model, const Case& what, bool fused) {
  Ctx ctx = m.ctx;
  ctx.fused = fused;
  const ModelConfig& c = model.config;
  KvCache cache(m.arena, c, kPages, what.form);
  for (int64_t p = 0; p < kPages; ++p)
    for (const auto part : cache.page_parts(p, c.num_layers()))
      std::fill(part.begin(), part.end(), std::byte{0});
  const std::vector<int32_t> texts[] = {testing::random_tokens(c, 70, 1),
                                        testing::random_tokens(c, 33, 2)};
  Trace out;
  // Tokens begin .. end-1 of both texts.
  using Pair = std::array<int64_t, 2>;
  const auto pass = [&](Pair begin, Pair end) {
    Step step;
    step.numerics = what.numerics;
    step.selection = usable_selection(c, what.selection);
    step.cache.cache = &cache;
    step.cache.page = {4, 0, 2, 3};
    step.cache.first_page = {0, 2};
    for (size_t b = 0; b < 2; ++b)
      step.add_sequence({texts[b].begin() + begin[b], texts[b].begin() + end[b]}, begin[b]);
    const Value hidden_TD = forward(ctx, model, step).hidden_TD;
    out.add(logits(ctx, model, hidden_TD));
    std::vector<LayerOut> layers;
    for (int64_t depth = 0; depth < c.num_nextn_predict_layers; ++depth)
      out.add(logits(ctx, model, mtp_forward(ctx, model, depth, hidden_TD, step, &layers)));
  };
  pass({0, 0}, {63, 30});
  for (int64_t i = 0; i < 3; ++i)  // the first text's go over the end of a page
    pass({63 + i, 30 + i}, {64 + i, 31 + i});
  for (int64_t p = 0; p < kPages; ++p)
    for (const auto part : cache.page_parts(p, c.num_layers()))
      out.cache.insert(out.cache.end(), part.begin(), part.end());
  return out;
}

void check_case(Machine& m, const Model& model, const Case& what) {
  CAPTURE(cache_form_name(what.form));
  const Trace fused = trace(m, model, what, true), apart = trace(m, model, what, false);
  CHECK(testing::Outcome::same_bits(fused.logits, apart.logits));
  CHECK(fused.cache == apart.cache);
  CHECK(std::any_of(fused.cache.begin(), fused.cache.end(),
                    [](std::byte b) { return b != std::byte{0}; }));
}

}  // namespace

TEST_CASE(
    "joined small ops have the bits of separate ones, in every family and form of the cache") {
  for (const char* family : testing::kFamilies) {
    CAPTURE(family);
    Machine m(2);
    const Model model = testing::make_model(m, testing::family_config(family));
    for (const CacheForm form : kCacheForms) check_case(m, model, {.form = form});
    check_case(m, model, {.form = CacheForm::kFp8, .numerics = Numerics::kFp8Cache});
    check_case(m, model, {.selection = KeySelection::kDense});
  }
}

TEST_CASE("the same with quantised weights") {
  for (const char* family : {"v32-tiny", "v2lite-tiny"})
    for (const Quant quant : {Quant::kQ8, Quant::kQ4}) {
      CAPTURE(family);
      CAPTURE(quant_name(quant));
      Machine m(2);
      const ModelConfig config = testing::family_config(family);
      const auto source = random_source(m.arena, config, 1);
      const Model model{config,
                        load_weights(m.ctx, config, *source, WeightUse::kServe, {.quant = quant})};
      for (const CacheForm form : {CacheForm::kBF16, CacheForm::kInt8})
        check_case(m, model, {form});
    }
}

TEST_CASE("the same with the reference kernels") {
  for (const char* family : {"v32-tiny", "v2lite-tiny"}) {
    CAPTURE(family);
    Machine m(1, cpu_ref());
    const Model model = testing::make_model(m, testing::family_config(family));
    for (const CacheForm form : {CacheForm::kF32, CacheForm::kInt8})
      check_case(m, model, {.form = form});
  }
}

TEST_CASE("the same in f64, without a cache") {
  Machine m(1, cpu_ref());
  m.ctx.real = DType::kF64;
  const Model model = testing::make_model(m, testing::family_config("v32-tiny"), WeightUse::kTrain);
  std::vector<double> numbers[2];
  for (const bool fused : {true, false}) {
    Ctx ctx = m.ctx;
    ctx.fused = fused;
    Step step;
    step.add_sequence(testing::random_tokens(model.config, 20, 1));
    step.add_sequence(testing::random_tokens(model.config, 7, 2));
    const Value y = logits(ctx, model, forward(ctx, model, step).hidden_TD);
    numbers[fused].assign(y->as<double>(), y->as<double>() + y->numel());
  }
  CHECK(std::memcmp(numbers[0].data(), numbers[1].data(), numbers[0].size() * 8) == 0);
}

}  // namespace fathom
