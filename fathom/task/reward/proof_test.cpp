// DeepSeekMath-V2's table of rewards, and labels without people. (Training spec 1.11, oracle 10.)
#include "fathom/task/reward/proof.h"

#include <doctest/doctest.h>

#include <vector>

namespace fathom {
namespace {

TEST_CASE("a proof earns most where it is right and says so, a little where it admits an error") {
  struct Row {
    double verified, said, want;
  };
  for (const Row& r : {Row{1, 1, 1}, Row{0, 0, 0.24}, Row{0, 1, 0}, Row{0.5, 0.5, 0.62},
                       Row{0.5, 1, 0.5}, Row{1, 0, 0.76}})
    CHECK(generator_reward(r.said, r.verified) == doctest::Approx(r.want).epsilon(1e-12));
}

TEST_CASE("the label is the lowest score that enough confirmed analyses give") {
  using Analyses = std::vector<AssessedAnalysis>;
  const AssessedAnalysis praise{1, 0, 0}, half{0.5, 3, 4}, wrong{0, 4, 4};
  const AssessedAnalysis invented{0, 1, 4}, undecided{0, 2, 4};
  CHECK(automatic_label(Analyses{half, wrong, wrong, praise}, 2) == 0);
  CHECK(automatic_label(Analyses{half, praise, half, praise}, 2) == 0.5);
  CHECK(automatic_label(Analyses{half, half, wrong}, 2) == std::nullopt);  // 0 is given once
  CHECK(automatic_label(Analyses{half, half, wrong}, 1) == 0);
  CHECK(automatic_label(Analyses{wrong, half, half}, 1) == 0);
  CHECK(automatic_label(Analyses{half, half, invented, undecided}, 2) == 0.5);
  CHECK(automatic_label(Analyses{praise, invented, undecided}, 2) == 1);
  CHECK(automatic_label(Analyses{praise}, 2) == 1);
  CHECK(automatic_label(Analyses{}, 1) == std::nullopt);
}

}  // namespace
}  // namespace fathom
