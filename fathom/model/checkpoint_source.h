// Models from checkpoint folders, and back.
#pragma once

#include <string>

#include "fathom/model/transformer.h"

namespace fathom {

// Opens a folder in the Hugging Face layout and builds the model. Throws Error for every defect of
// the files. For serving without a limit of memory, packed weights beside it are used when they
// are of this folder and program.
Model load_model(const Ctx& ctx, const std::string& folder, WeightUse use,
                 const LoadOptions& options = {});
// Stores the packed forms of a model that load_model() made of `folder` with these options beside
// it, for the next load; nothing when it was made of them. Throws Error when they cannot be
// written.
void save_packed_weights(const Ctx& ctx, const std::string& folder, const Model& model,
                         const LoadOptions& options);
// A text that is another one whenever config or weights of the folder may have changed; a copy of
// the folder has another one too. Throws Error for a folder that is none.
std::string checkpoint_identity(const std::string& folder);
// A new model with random weights, for training.
Model random_model(const Ctx& ctx, const ModelConfig& config, uint64_t seed);
// Writes masters and buffers under their published names, in the element type they have.
void save_model(const std::string& folder, const Model& model);

}  // namespace fathom
