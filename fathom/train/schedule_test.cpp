#include "fathom/train/schedule.h"

#include <doctest/doctest.h>

namespace fathom {
namespace {

TEST_CASE(
    "learning rate: warm-up reaches the peak with its last step, then constant, then cosine") {
  const ScheduleOptions o{
      .learning_rate = 2, .min_learning_rate = 0.5, .warmup_steps = 4, .constant_share = 0.5};
  const double expect[4] = {0.5, 1, 1.5, 2};
  for (int i = 0; i < 4; ++i) CHECK(learning_rate_at(o, i, 104) == expect[i]);
  CHECK(learning_rate_at(o, 54, 104) == 2);  // half of the 100 steps after the warm-up
  CHECK(learning_rate_at(o, 55, 104) < 2);
  CHECK(learning_rate_at(o, 79, 104) == doctest::Approx(1.25));  // the middle of the cosine
  CHECK(learning_rate_at(o, 103, 104) > 0.5);
  CHECK(learning_rate_at(o, 104, 104) == 0.5);
  CHECK(learning_rate_at(o, 1000, 104) == 0.5);
}

TEST_CASE("learning rate: corners") {
  ScheduleOptions o{.learning_rate = 1, .min_learning_rate = 0, .warmup_steps = 0};
  o.constant_share = 1;
  CHECK(learning_rate_at(o, 0, 1) == 1);
  CHECK(learning_rate_at(o, 9, 10) == 1);
  o.constant_share = 0;
  CHECK(learning_rate_at(o, 0, 10) == 1);
  CHECK(learning_rate_at(o, 5, 10) == doctest::Approx(0.5));
  o.warmup_steps = 20;  // longer than the stage
  CHECK(learning_rate_at(o, 9, 10) == doctest::Approx(0.5));
  CHECK(learning_rate_at(o, 0, 10) > 0);  // the first step is never lost
}

TEST_CASE("batch size: ramps from its start to the full size and never leaves 1 .. full") {
  ScheduleOptions o{.batch_ramp_steps = 10};
  CHECK(batch_size_at(o, 0, 16) == 4);  // a quarter
  CHECK(batch_size_at(o, 5, 16) == 10);
  CHECK(batch_size_at(o, 9, 16) == 14);
  CHECK(batch_size_at(o, 10, 16) == 16);
  CHECK(batch_size_at(o, 0, 3) == 1);
  o.batch_ramp_start = 40;
  CHECK(batch_size_at(o, 0, 16) == 16);
  o.batch_ramp_steps = 0;
  CHECK(batch_size_at(o, 0, 16) == 16);
  int64_t last = 0;
  o = {.batch_ramp_steps = 7, .batch_ramp_start = 2};
  for (int i = 0; i < 12; ++i) {
    CHECK(batch_size_at(o, i, 9) >= last);
    last = batch_size_at(o, i, 9);
  }
  CHECK(last == 9);
}

}  // namespace
}  // namespace fathom
