// Angles per position of the rotary embedding, with YaRN's interpolation (Peng et al. 2023; V3
// report 4.3).
#pragma once

#include <vector>

#include "fathom/model/config.h"

namespace fathom {

// qk_rope_head_dim / 2 frequencies in radians per position, for MLA and indexer alike. The
// amplitude is separate: ModelConfig::rope_amplitude().
std::vector<double> rope_frequencies(const ModelConfig& config);

// Between these two dimensions YaRN goes over from the plain frequency to the divided one.
struct YarnRange {
  double low = 0, high = 0;
};
YarnRange yarn_range(const ModelConfig& config);  // the config must have rope_scaling

}  // namespace fathom
