#include "fathom/model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fathom/base/error.h"

namespace fathom {

YarnRange yarn_range(const ModelConfig& config) {
  FM_CHECK(config.rope_scaling.has_value(), "no rope_scaling in this config");
  const RopeScaling& y = *config.rope_scaling;
  const double width = static_cast<double>(config.qk_rope_head_dim);
  const double context = static_cast<double>(y.original_max_position_embeddings);
  // The dimension whose wave makes `rotations` turns over the original context.
  const auto dimension_of = [&](double rotations) {
    return width * std::log(context / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(config.rope_theta));
  };
  YarnRange range{std::max(std::floor(dimension_of(y.beta_fast)), 0.0),
                  std::min(std::ceil(dimension_of(y.beta_slow)), width - 1)};
  if (range.low == range.high) range.high += 0.001;
  return range;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
  const int64_t half = config.qk_rope_head_dim / 2;
  std::vector<double> f(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i)
    f[static_cast<size_t>(i)] =
        std::pow(config.rope_theta,
                 -static_cast<double>(2 * i) / static_cast<double>(config.qk_rope_head_dim));
  if (!config.rope_scaling) return f;
  const YarnRange range = yarn_range(config);
  for (int64_t i = 0; i < half; ++i) {
    double& x = f[static_cast<size_t>(i)];
    const double ramp =
        std::clamp((static_cast<double>(i) - range.low) / (range.high - range.low), 0.0, 1.0);
    x = x / config.rope_scaling->factor * ramp + x * (1 - ramp);
  }
  return f;
}

}  // namespace fathom
