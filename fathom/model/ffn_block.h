// The feed-forward half of a layer: a dense SwiGLU network, or routed experts plus shared ones
// (model spec 3.6).
#pragma once

#include "fathom/model/attention_block.h"

namespace fathom {

// x_TD is the normed input of the block.
Value ffn_block(Ctx& ctx, const LayerContext& lc, const BlockWeights& w, int64_t layer,
                const Value& x_TD, const Step& step, LayerOut* out);

}  // namespace fathom
