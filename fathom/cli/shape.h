// Shapes of models without weights: a config.json, or the name of one that comes with fathom.
#pragma once

#include <string>

#include "fathom/model/config.h"

namespace fathom {

// `name` is a file, a folder with config.json, or the name of a file in recipes/shapes ("s15m"),
// which is looked for in the working folder and beside the program's build folder. Throws Error.
ModelConfig read_shape(const std::string& name);

// Cuts a config to fewer layers; negative numbers leave theirs as it is. Throws Error when the
// result is no model.
struct LayerCut {
  int64_t layers = -1;        // num_hidden_layers
  int64_t dense_layers = -1;  // first_k_dense_replace
  int64_t mtp_layers = -1;    // num_nextn_predict_layers
};
ModelConfig cut_layers(ModelConfig config, const LayerCut& cut);

}  // namespace fathom
