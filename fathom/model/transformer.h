// The whole model: embedding, blocks, final norm; and the multi-token prediction layers on top.
// Training and serving call the same functions; what differs is the tape in the Ctx and the cache
// in the Step.
#pragma once

#include "fathom/model/step.h"
#include "fathom/model/weights.h"

namespace fathom {

struct Model {
  ModelConfig config;
  ModelWeights weights;
};

// Up to the final norm. Probes hidden.0 .. hidden.L (the residual stream), hidden.norm and the
// layers' tensors. `step` must outlive the tape.
StepOut forward(Ctx& ctx, const Model& model, const Step& step);

// Multi-token prediction layer `depth` (model spec 3.7). hidden_TD: rows of the previous depth's
// output (the main model's final-normed hidden states for depth 0); step.token: the token after
// each row's own; step.pos: the row's own position. Returns hidden_TD after shared_head.norm: the
// head's input, and the next depth's hidden states. The layer's record is appended to `layers`.
Value mtp_forward(Ctx& ctx, const Model& model, int64_t depth, const Value& hidden_TD,
                  const Step& step, std::vector<LayerOut>* layers);

// h W_head^T. Probes logits.
Value logits(Ctx& ctx, const Model& model, const Value& hidden_TD);

}  // namespace fathom
