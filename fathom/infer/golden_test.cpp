// The engine on checkpoint folders: the reference's greedy continuation, and equal bits for weights
// as stored and weights as trained.
#include <doctest/doctest.h>

#include <cmath>

#include "fathom/infer/infer_testing.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/tensor/safetensors.h"

namespace fathom {
namespace {

using testing::Machine;
using testing::Outcome;

TEST_CASE("greedy decoding gives the reference's continuation") {
  const std::string folder = "tests/golden/v32-tiny";
  Machine m(2);
  const Model model = load_model(m.ctx, folder, WeightUse::kServe);
  const SafetensorsFile expected(folder + "/expected.safetensors");
  const Tensor input = expected.tensor("input_ids"), ids = expected.tensor("greedy.ids"),
               logprobs = expected.tensor("greedy.logprobs");
  Request r;
  for (int64_t i = 0; i < input.view.numel(); ++i)
    r.prompt.push_back(static_cast<int32_t>(get_element(input, i)));
  r.params = {.temperature = 0, .max_tokens = ids.view.numel()};
  for (const int64_t rows : {512, 17}) {
    Engine engine(m.ctx, model, {.num_pages = 4, .max_step_tokens = rows});
    const Outcome got = testing::run_all(engine, {r})[0];
    REQUIRE(got.tokens.size() == static_cast<size_t>(ids.view.numel()));
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < ids.view.numel(); ++i) {
      CHECK(got.tokens[static_cast<size_t>(i)] == static_cast<int32_t>(get_element(ids, i)));
      const double want = get_element(logprobs, i);
      const double diff = std::abs(static_cast<double>(got.logp[static_cast<size_t>(i)]) - want);
      worst = std::max(worst, diff);
      largest = std::max(largest, std::abs(want));
    }
    CHECK(worst <= 3e-5 * largest);
  }
}

TEST_CASE("weights as stored and weights as trained give equal log-probs, bit for bit") {
  for (const char* family : testing::kFamilies) {
    CAPTURE(family);
    const std::string folder = std::string("tests/golden/") + family;
    Machine m;
    const Model served = load_model(m.ctx, folder, WeightUse::kServe);
    const Model trained = load_model(m.ctx, folder, WeightUse::kTrain);
    const auto requests = testing::mixed_requests(served.config, 5);
    Engine engine(m.ctx, served, {.num_pages = 32, .max_context = 200});
    std::vector<Request> short_enough;
    for (const Request& r : requests)
      if (std::ssize(r.prompt) + 12 < engine.max_context()) short_enough.push_back(r);
    const std::vector<Outcome> got = testing::run_all(engine, short_enough);
    const auto want =
        testing::training_logp(m, trained, testing::finished_texts(short_enough, got),
                               usable_selection(served.config, KeySelection::kSparse));
    for (size_t i = 0; i < got.size(); ++i)
      CHECK(Outcome::same_bits(got[i].logp, testing::tail(want[i], got[i].tokens.size())));
  }
}

}  // namespace
}  // namespace fathom
