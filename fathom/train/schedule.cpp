#include "fathom/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fathom {

double learning_rate_at(const ScheduleOptions& o, int64_t step, int64_t num_steps) {
  if (step < o.warmup_steps)
    return o.learning_rate * static_cast<double>(step + 1) / static_cast<double>(o.warmup_steps);
  const double after = static_cast<double>(std::max<int64_t>(num_steps - o.warmup_steps, 1));
  const double x = static_cast<double>(step - o.warmup_steps) / after;
  if (x <= o.constant_share || o.constant_share >= 1) return o.learning_rate;
  const double y = std::min(1.0, (x - o.constant_share) / (1 - o.constant_share));
  return o.min_learning_rate +
         (o.learning_rate - o.min_learning_rate) * 0.5 * (1 + std::cos(std::numbers::pi * y));
}

int64_t batch_size_at(const ScheduleOptions& o, int64_t step, int64_t full) {
  if (step >= o.batch_ramp_steps) return full;
  const int64_t start =
      o.batch_ramp_start > 0 ? o.batch_ramp_start : std::max<int64_t>(1, full / 4);
  return std::clamp(start + (full - start) * step / o.batch_ramp_steps, int64_t{1}, full);
}

}  // namespace fathom
