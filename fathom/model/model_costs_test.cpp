#include "fathom/model/model_costs.h"

#include <doctest/doctest.h>

#include <string>

namespace fathom {
namespace {

ModelConfig published(const std::string& name) {
  return read_config("tests/configs/" + name + ".json");
}

}  // namespace

TEST_CASE("key cache of V3.2: 656 and 132 bytes, 788 in all, 1152 for the latent in bf16") {
  const ModelConfig c = published("deepseek-v3.2");
  CHECK(latent_bytes(c, CacheForm::kFp8) == 656);
  CHECK(index_bytes(c, CacheForm::kFp8) == 132);
  CHECK(latent_bytes(c, CacheForm::kBF16) == 1152);
  CHECK(latent_bytes(c, CacheForm::kF32) == 2304);
  CHECK(cache_bytes_per_token(c, CacheForm::kFp8) == 62 * 788);
  const double gib = 131072.0 * 62 * 788 / (1 << 30);
  CHECK(gib == doctest::Approx(5.96).epsilon(0.001));
  CHECK(index_bytes(published("deepseek-v3"), CacheForm::kBF16) == 0);
}

TEST_CASE("operations for a pair of query and key are those of the specification") {
  const ModelConfig c = published("deepseek-v3.2");
  const auto per_pair = [&](Attending a) {
    return (token_flops(c, 2001, a).attention - token_flops(c, 2000, a).attention) / 61;
  };
  CHECK(per_pair(Attending::kDenseAbsorbed) == 278528);
  CHECK(per_pair(Attending::kDenseNaive) == 81920);
  CHECK(per_pair(Attending::kSparse) == 278528);
  const TokenFlops far = token_flops(c, 100000, Attending::kSparse);
  CHECK(far.attention == 278528.0 * 2048 * 61);
  CHECK(far.indexer == 16384.0 * 100000 * 61);
  CHECK(sparse_break_even(c) == 2176);
  CHECK(sparse_break_even(published("deepseek-v3")) == 0);
}

TEST_CASE(
    "products with weights: active parameters without embedding, and without indexer if dense") {
  const ModelConfig c = published("deepseek-v3");
  const double active = 37552282624.0, embedding = 129280.0 * 7168;
  CHECK(token_flops(c, 1, Attending::kDenseNaive).weights == 2 * (active - embedding));
  const ModelConfig v32 = published("deepseek-v3.2");
  CHECK(token_flops(v32, 1, Attending::kDenseAbsorbed).weights == 2 * (active - embedding));
  CHECK(token_flops(v32, 1, Attending::kSparse).weights ==
        2 * (active - embedding + 61 * 13959424.0));
}

TEST_CASE("a token reads the shares of the tensors that add up to the active parameters") {
  const ModelConfig c = published("deepseek-v3");
  double read = 0;
  for (const TensorSpec& spec : tensor_specs(c))
    if (spec.kind != TensorKind::kCorrectionBias)
      read += share_per_token(spec, c) * static_cast<double>(spec.numel());
  CHECK(read == doctest::Approx(37552282624.0 - 129279.0 * 7168).epsilon(1e-12));
}

TEST_CASE("sparse attention reads the selected latents and all keys of the indexer") {
  const ModelConfig c = published("deepseek-v3.2");
  CHECK(cache_reads(c, 10000, Attending::kSparse, CacheForm::kFp8) ==
        61.0 * (2048 * 656 + 10000 * 132));
  CHECK(cache_reads(c, 10000, Attending::kDenseAbsorbed, CacheForm::kFp8) == 61.0 * 10000 * 656);
}

}  // namespace fathom
