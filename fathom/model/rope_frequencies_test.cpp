#include "fathom/model/rope_frequencies.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <utility>

#include "fathom/base/file.h"

namespace fathom {
namespace {

ModelConfig named(const std::string& name) {
  return read_config("tests/configs/" + name + ".json");
}

void check_printed(const std::vector<double>& f,
                   std::initializer_list<std::pair<size_t, double>> want) {
  for (const auto& [i, x] : want)
    CHECK_MESSAGE(std::fabs(f[i] - x) <= 2e-7 * x, "f'[" << i << "] = " << f[i] << ", want " << x);
}

}  // namespace

TEST_CASE("YaRN frequencies of V3") {
  const ModelConfig c = named("deepseek-v3");
  const YarnRange range = yarn_range(c);
  CHECK(range.low == 10);
  CHECK(range.high == 23);
  const std::vector<double> f = rope_frequencies(c);
  REQUIRE(f.size() == 32);
  check_printed(f, {{0, 1.0},
                    {1, 0.7498942},
                    {8, 0.1},
                    {9, 0.074989416},
                    {10, 0.056234129},
                    {11, 0.039006926},
                    {12, 0.026879361},
                    {13, 0.018378144},
                    {16, 0.0055000004},
                    {20, 0.00079056941},
                    {21, 0.00041499041},
                    {22, 0.00017782794},
                    {23, 3.3338038e-05},
                    {24, 2.5000001e-05},
                    {31, 3.3338038e-06}});
}

TEST_CASE("YaRN with equal betas keeps a step of one dimension, as in Kimi K2") {
  const ModelConfig c = named("kimi-k2");
  const YarnRange range = yarn_range(c);
  CHECK(range.low == 19);
  CHECK(range.high == 20);
  check_printed(rope_frequencies(c), {{20, 3.6140467e-05}, {31, 8.7644128e-07}});
  CHECK(rope_frequencies(c)[19] == doctest::Approx(0.00162176).epsilon(2e-6));
}

TEST_CASE("YaRN with equal bounds does not divide by zero") {
  ModelConfig c = named("deepseek-v3");
  c.rope_scaling->original_max_position_embeddings = 1;
  const YarnRange range = yarn_range(c);
  CHECK(range.low == 0);
  c.rope_scaling->beta_fast = c.rope_scaling->beta_slow =
      1e-9;  // both bounds beyond the last dimension
  c.qk_rope_head_dim = 2;
  for (const double f : rope_frequencies(c)) CHECK(std::isfinite(f));
}

TEST_CASE("YaRN frequencies of the tiny configuration cross the ramp") {
  ModelConfig c = named("deepseek-v3");
  c.qk_rope_head_dim = 16;
  c.rope_scaling->factor = 8;
  c.rope_scaling->original_max_position_embeddings = 64;
  CHECK(yarn_range(c).low == 0);
  CHECK(yarn_range(c).high == 3);
  check_printed(rope_frequencies(c), {{0, 1},
                                      {1, 0.22399466},
                                      {2, 0.041666664},
                                      {3, 0.0039528473},
                                      {4, 0.00125},
                                      {5, 0.00039528473},
                                      {6, 0.00012500001},
                                      {7, 3.9528473e-05}});
}

TEST_CASE("softmax scales carry the square of mscale") {
  const auto check = [](ModelConfig c, double ms, double scale) {
    CHECK(std::fabs(c.softmax_scale() - scale) < 5e-10);
    CHECK(std::fabs(c.softmax_scale() * std::sqrt(static_cast<double>(c.qk_head_dim())) - ms * ms) <
          1e-9);
    CHECK(c.rope_amplitude() == 1);
  };
  check(named("deepseek-v3"), 1.3688879454, 0.1352337789);
  check(named("deepseek-v3.2"), 1.3688879454, 0.1352337789);
  check(named("deepseek-v2-lite"), 1.2608037774, 0.1147213868);
  check(named("kimi-k2"), 1.3465735903, 0.1308608000);
  ModelConfig thinking = named("kimi-k2");
  thinking.rope_scaling->factor = 64;
  check(thinking, 1.4158883083, 0.1446796256);
  check(named("moonlight"), 1, 0.0721687836);
  check(named("glm-4.7-flash"), 1, 0.0625);
  check(named("glm-5"), 1, 0.0625);
  ModelConfig plain = named("deepseek-v3");
  plain.rope_scaling.reset();
  check(plain, 1, 0.0721687836);
}

TEST_CASE("frequencies, scale and amplitude equal those of every golden folder") {
  int compared = 0;
  for (const char* name :
       {"v32-nano", "v32-tiny", "v3-tiny", "v2lite-tiny", "v2-tiny", "moonlight-tiny", "kimi-tiny",
        "glm-dsa-tiny", "mscale-split-tiny", "v32-tiny-fp8", "v32-tiny-fp8-ue8m0"}) {
    const std::string folder = std::string("tests/golden/") + name;
    const ModelConfig c = read_config(folder + "/config.json");
    const Json about = Json::parse(read_file(folder + "/about.json"), name);
    if (const Json* want = about.find("inv_freq")) {
      const std::vector<double> f = rope_frequencies(c);
      REQUIRE(want->items().size() == f.size());
      for (size_t i = 0; i < f.size(); ++i)
        CHECK_MESSAGE(std::fabs(f[i] / want->items()[i].as_double() - 1) < 1e-12, name << " " << i);
      ++compared;
    }
    if (const Json* want = about.find("softmax_scale"))
      CHECK_MESSAGE(std::fabs(c.softmax_scale() / want->as_double() - 1) < 1e-12, name);
    if (const Json* want = about.find("rope_amplitude"))
      CHECK_MESSAGE(std::fabs(c.rope_amplitude() / want->as_double() - 1) < 1e-12, name);
  }
  CHECK(compared == 7);
}

}  // namespace fathom
