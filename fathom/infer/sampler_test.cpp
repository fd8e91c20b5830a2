// Truncation, determinism and the distribution of the sampler.
#include "fathom/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

using Ids = std::vector<int32_t>;

std::vector<float> logits_of(std::vector<double> probabilities) {
  std::vector<float> z;
  for (const double p : probabilities) z.push_back(static_cast<float>(std::log(p)));
  return z;
}

const std::vector<float> kRow = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});

TEST_CASE("top-k keeps the likeliest, ties go to the lower id") {
  CHECK(sampling_support(kRow, {.top_k = 2}) == Ids{1, 3});
  CHECK(sampling_support(kRow, {.top_k = 1}) == Ids{1});
  CHECK(sampling_support(kRow, {.top_k = 5}).empty());
  CHECK(sampling_support(kRow, {.top_k = 99}).empty());
  const std::vector<float> flat(200, 1.5f);
  CHECK(sampling_support(flat, {.top_k = 3}) == Ids{0, 1, 2});
}

TEST_CASE("top-p keeps the shortest front that reaches the mass") {
  CHECK(sampling_support(kRow, {.top_p = 0.39}) == Ids{1});
  CHECK(sampling_support(kRow, {.top_p = 0.5}) == Ids{1, 3});
  CHECK(sampling_support(kRow, {.top_p = 0.84}) == Ids{1, 3, 4});
  CHECK(sampling_support(kRow, {.top_p = 1e-12}) == Ids{1});
  CHECK(sampling_support(kRow, {.top_p = 1}).empty());
}

TEST_CASE("top-p counts the mass of what top-k left") {
  // 0.4 and 0.25 become 0.615 and 0.385
  CHECK(sampling_support(kRow, {.top_p = 0.6, .top_k = 2}) == Ids{1});
  CHECK(sampling_support(kRow, {.top_p = 0.63, .top_k = 2}) == Ids{1, 3});
}

TEST_CASE("min-p is relative to the largest probability") {
  CHECK(sampling_support(kRow, {.min_p = 0.3}) == Ids{1, 3, 4});
  CHECK(sampling_support(kRow, {.min_p = 1}) == Ids{1});
  CHECK(sampling_support(kRow, {.min_p = 0.01}).empty());
  CHECK(sampling_support(kRow, {.top_k = 2, .min_p = 0.7}) == Ids{1});
}

TEST_CASE("temperature acts before truncation") {
  // squared and renormalised, 0.4 alone holds 0.16 / 0.275
  CHECK(sampling_support(kRow, {.temperature = 0.5, .top_p = 0.55}) == Ids{1});
  CHECK(sampling_support(kRow, {.temperature = 100, .top_p = 0.55}).size() == 3);
}

TEST_CASE("a sorted front of any length equals a full sort") {
  Rng rng(3, "row");
  std::vector<float> row;
  for (int i = 0; i < 1000; ++i) row.push_back(static_cast<float>(rng.below(50)));
  Ids order(row.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
  });
  for (const int64_t k : {1, 63, 64, 65, 256, 999}) {
    Ids want(order.begin(), order.begin() + k);
    std::sort(want.begin(), want.end());
    CHECK(sampling_support(row, {.top_k = k}) == want);
  }
}

TEST_CASE("greedy takes the largest logit, ties the lowest id") {
  const Draw d = draw_token(std::vector<float>{1, 3, 3, 2}, {.temperature = 0}, 7);
  CHECK(d.token == 1);
  CHECK(d.behaviour_logp == 0);
  CHECK(d.support == Ids{1});
}

TEST_CASE("logits that are not finite are an error; -inf only excludes a token") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const double t : {0.0, 1.0}) {
    const SampleParams p{.temperature = t};
    CHECK_THROWS_AS(draw_token(std::vector<float>{0, nan, 1}, p, 0), Error);
    CHECK_THROWS_AS(draw_token(std::vector<float>{0, inf, 1}, p, 0), Error);
    CHECK_THROWS_AS(draw_token(std::vector<float>{-inf, -inf}, p, 0), Error);
    for (int64_t i = 0; i < 50; ++i)
      CHECK(draw_token(std::vector<float>{-inf, 0, -inf, 0}, p, i).token % 2 == 1);
  }
}

TEST_CASE("parameters out of range are errors") {
  check_params({});
  CHECK_THROWS_AS(check_params({.temperature = -1}), Error);
  CHECK_THROWS_AS(check_params({.temperature = std::nan("")}), Error);
  CHECK_THROWS_AS(check_params({.top_p = 0}), Error);
  CHECK_THROWS_AS(check_params({.top_p = 1.5}), Error);
  CHECK_THROWS_AS(check_params({.top_k = -1}), Error);
  CHECK_THROWS_AS(check_params({.min_p = 2}), Error);
  CHECK_THROWS_AS(check_params({.max_tokens = -1}), Error);
}

TEST_CASE("a draw depends on seed and position") {
  const std::vector<float> row(64, 0.0f);
  const SampleParams p{.seed = 5};
  CHECK(draw_token(row, p, 3).token == draw_token(row, p, 3).token);
  int moved = 0, reseeded = 0;
  for (int64_t i = 0; i < 20; ++i) {
    moved += draw_token(row, p, i).token != draw_token(row, p, i + 1).token;
    reseeded += draw_token(row, p, i).token != draw_token(row, {.seed = 6}, i).token;
  }
  CHECK(moved > 15);
  CHECK(reseeded > 15);
}

// sum (seen - expected)^2 / expected over the support; anything outside is a failure.
double chi_square(const std::vector<float>& row, const SampleParams& p, int draws, size_t* cells) {
  std::vector<double> seen(row.size(), 0.0);
  for (int i = 0; i < draws; ++i) seen[static_cast<size_t>(draw_token(row, p, i).token)] += 1;
  const Ids support = sampling_support(row, p);
  double chi = 0;
  *cells = 0;
  for (size_t t = 0; t < row.size(); ++t) {
    const double logp = support_logp(row, p.temperature, support, static_cast<int32_t>(t));
    const double expected = draws * std::exp(logp);
    if (expected == 0) {
      CHECK(seen[t] == 0);
      continue;
    }
    chi += (seen[t] - expected) * (seen[t] - expected) / expected;
    ++*cells;
  }
  return chi;
}

TEST_CASE("draws follow the tempered, truncated distribution") {
  Rng rng(11, "row");
  std::vector<float> row;
  for (int i = 0; i < 20; ++i) row.push_back(static_cast<float>(rng.normal()));
  const SampleParams cases[] = {{.seed = 1},
                                {.temperature = 0.6, .seed = 2},
                                {.top_p = 0.7, .seed = 3},
                                {.top_k = 6, .seed = 4},
                                {.temperature = 1.5, .top_p = 0.9, .min_p = 0.1, .seed = 5}};
  for (const SampleParams& p : cases) {
    size_t cells = 0;
    const double chi = chi_square(row, p, 20000, &cells);
    // mean cells - 1, standard deviation sqrt(2 (cells - 1)): four of them
    const double degrees = static_cast<double>(cells) - 1;
    CAPTURE(p.seed);
    CHECK(chi < degrees + 4 * std::sqrt(2 * degrees));
  }
  // The test itself must be able to fail: the same draws against another temperature.
  size_t cells = 0;
  std::vector<double> seen(row.size(), 0.0);
  double chi = 0;
  for (int i = 0; i < 20000; ++i)
    seen[static_cast<size_t>(draw_token(row, {.temperature = 0.9}, i).token)] += 1;
  for (size_t t = 0; t < row.size(); ++t, ++cells) {
    const double expected = 20000 * std::exp(support_logp(row, 1, {}, static_cast<int32_t>(t)));
    chi += (seen[t] - expected) * (seen[t] - expected) / expected;
  }
  CHECK(chi > 4 * static_cast<double>(cells));
}

TEST_CASE("log-probs of a support sum to one") {
  for (const Ids& support : {Ids{}, Ids{2}, Ids{0, 3, 4}}) {
    double sum = 0;
    for (int32_t t = 0; t < 5; ++t) sum += std::exp(support_logp(kRow, 0.7, support, t));
    CHECK(sum == doctest::Approx(1).epsilon(1e-12));
  }
  CHECK(support_logp(kRow, 1, Ids{2}, 2) == 0);
  CHECK(support_logp(kRow, 1, Ids{0, 2}, 1) == -std::numeric_limits<double>::infinity());
}

TEST_CASE("the row log-prob is the log of the softmax and skips absent targets") {
  testing::Machine m;
  const Tensor logits_TW = empty(m.arena, DType::kF32, {3, 5});
  for (int64_t t = 0; t < 3; ++t)
    std::copy(kRow.begin(), kRow.end(), logits_TW.as<float>() + 5 * t);
  const std::vector<float> logp = row_logprob(m.ctx, logits_TW, Ids{1, -1, 4});
  CHECK(logp[0] == doctest::Approx(std::log(0.4)).epsilon(1e-6));
  CHECK(logp[1] == 0);
  CHECK(logp[2] == doctest::Approx(std::log(0.2)).epsilon(1e-6));
}

TEST_CASE("top log-probs are in order") {
  const std::vector<TokenLogp> top = top_logprobs(kRow, 3);
  REQUIRE(top.size() == 3);
  CHECK(top[0].token == 1);
  CHECK(top[1].token == 3);
  CHECK(top[2].token == 4);
  CHECK(top[0].logp == doctest::Approx(std::log(0.4)).epsilon(1e-6));
  CHECK(top_logprobs(kRow, 99).size() == 5);
  CHECK(top_logprobs(kRow, 0).empty());
}

}  // namespace
}  // namespace fathom
