// Multi-head latent attention with the lightning indexer (DeepSeek-V3.2, section 2; model
// spec 3.3-3.5).
#pragma once

#include "fathom/model/step.h"
#include "fathom/model/weights.h"
#include "fathom/ops/basic.h"

namespace fathom {

// What all layers of a model share.
struct LayerContext {
  const ModelConfig& config;
  RopeTable rope;  // of MLA; the indexer uses the same frequencies with amplitude 1
  RopeTable indexer_rope;
};
LayerContext make_layer_context(const ModelConfig& config);

// x_TD is the normed layer input. `sel_TK` carries the selection to layers that share it (GLM-5.2).
Value attention_block(Ctx& ctx, const LayerContext& lc, const AttentionWeights& w, int64_t layer,
                      const Value& x_TD, const Step& step, Tensor* sel_TK, LayerOut* out);

// x W^T, with the input rounded as the FP8 path does when the weight is stored in FP8.
Value project(Ctx& ctx, const LayerContext& lc, const Value& x_TD, const Weight& w,
              const Step& step);

// The same for several weights; where nothing is rounded they share a parallel region.
template <class... W>
std::array<Value, sizeof...(W)> projects(Ctx& ctx, const LayerContext& lc, const Value& x_TD,
                                         const Step& step, const W&... w) {
  if (step.numerics == Numerics::kExact) return linears(ctx, x_TD, w...);
  return {project(ctx, lc, x_TD, w, step)...};
}

}  // namespace fathom
