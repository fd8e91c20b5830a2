// Learning rate and batch size over a stage, in the published shape: linear warm-up, constant,
// cosine decay; batch ramp.
#pragma once

#include <cstdint>

#include "fathom/base/options.h"

namespace fathom {

struct ScheduleOptions {
  double learning_rate = 1e-3;      // the peak
  double min_learning_rate = 1e-4;  // after the decay
  int64_t warmup_steps = 50;
  double constant_share = 0.6;   // of the steps after the warm-up; the rest decays by a cosine
  int64_t batch_ramp_steps = 0;  // the batch grows linearly over these steps
  int64_t batch_ramp_start = 0;  // from this many windows; 0: a quarter of the full batch

  void fields(OptionSet& o) {
    o.add("learning_rate", &learning_rate, "peak learning rate");
    o.add("min_learning_rate", &min_learning_rate, "learning rate after the cosine decay");
    o.add("warmup_steps", &warmup_steps, "steps of linear warm-up");
    o.add("constant_share", &constant_share,
          "share of the steps after warm-up at the peak; the rest decays by a cosine");
    o.add("batch_ramp_steps", &batch_ramp_steps,
          "steps over which the batch grows to its full size");
    o.add("batch_ramp_start", &batch_ramp_start,
          "windows of the first batch; 0: a quarter of the full one");
  }
};

// step counts from 0. Pure functions, so that a resumed run needs no state.
double learning_rate_at(const ScheduleOptions& o, int64_t step, int64_t num_steps);
int64_t batch_size_at(const ScheduleOptions& o, int64_t step, int64_t full);

}  // namespace fathom
