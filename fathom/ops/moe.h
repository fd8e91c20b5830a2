// Router and experts (DeepSeek-V3 report, eq. 12-16; V2 gates too). No capacity, no dropped tokens.
#pragma once

#include <memory>
#include <vector>

#include "fathom/ops/linear.h"

namespace fathom {

struct GateOptions {
  ScoringFunc scoring = ScoringFunc::kSigmoid;
  TopkMethod method = TopkMethod::kNoauxTc;
  int64_t n_group = 1, topk_group = 1, num_experts_per_tok = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
};

// Which rows go to which expert. P = T * A slots, sorted by expert, inside an expert by token.
struct Routing {
  Value scores_TE, weights_TA;
  Tensor experts_TA;            // i32, descending selection score
  std::vector<int32_t> offset;  // [E+1]: slots of expert e
  std::vector<int32_t> token;   // [P]: the token of a slot
  std::vector<int32_t> slot;    // [T*A]: the slot of (token, a)
};

// bias_E may be empty. forced_TA (i32, may be empty) replays a selection; weights still come from
// these logits.
std::shared_ptr<const Routing> route(Ctx& ctx, const Value& logits_TE, const View& bias_E,
                                     const GateOptions& options, const View& forced_TA = {});

struct ExpertWeights {
  std::vector<Weight> gate_proj, up_proj, down_proj;  // [E]
};
// y[t] = sum_a weights[t,a] down_e(silu(gate_e x_t) * up_e x_t), a ascending
Value experts(Ctx& ctx, const Value& x_TD, const std::shared_ptr<const Routing>& routing,
              const ExpertWeights& weights);

// Records the gradient of weight * (sequence-wise balance loss) and returns the unweighted loss.
// first_row [num_seq+1].
double balance_loss(Ctx& ctx, const std::shared_ptr<const Routing>& routing,
                    const std::vector<int32_t>& first_row, int64_t num_experts_per_tok,
                    double weight);

}  // namespace fathom
