// Router and experts (DeepSeek-V3 report, eq. 12-16; V2 gates too). No capacity, no dropped tokens.
#pragma once

#include <memory>
#include <span>
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
  Tensor experts_TA;  // i32, descending selection score
  Tensor own_TA;      // with a forced selection: what the router would have chosen; else empty
  std::span<const int32_t> offset;  // [E+1]: slots of expert e
  std::span<const int32_t> token;   // [P]: the token of a slot
  std::span<const int32_t> pair;    // [P]: the place of a slot in weights_TA
  std::span<const int32_t> slot;    // [T*A]: the slot of (token, a)
  Tensor lists;                     // owns the four
};

// bias_E may be empty. forced_TA (i32, may be empty) replays a selection; weights still come from
// these logits.
std::shared_ptr<const Routing> route(Ctx& ctx, const Value& logits_TE, const View& bias_E,
                                     const GateOptions& options, const View& forced_TA = {});

struct ExpertRef {
  int64_t expert = 0;
  Weight gate_proj, up_proj, down_proj;
};

// The experts of one layer where memory does not hold them all. One thread at a time.
class ExpertStream {
 public:
  virtual ~ExpertStream() = default;
  // The experts that a pass needs, each once: those that are missing are fetched from now on. Ends
  // an earlier pass that was left.
  virtual void begin(const std::vector<int32_t>& experts) = 0;
  // Experts of the pass that are in memory and have not been returned yet, in any order; waits for
  // at least one; none when the pass is over. They may be used until the next call. Throws what
  // went wrong while fetching.
  virtual std::vector<ExpertRef> next() = 0;
};

struct ExpertWeights {
  std::vector<Weight> gate_proj, up_proj, down_proj;  // [E]; empty with a stream
  std::shared_ptr<ExpertStream> stream;               // forward only
};

// Calls use(const ExpertRef&) once for every expert that has rows, in the order in which they are
// at hand.
template <class F>
void for_each_expert(const ExpertWeights& weights, const Routing& routing, const F& use) {
  std::vector<int32_t> wanted;
  for (size_t e = 0; e + 1 < routing.offset.size(); ++e)
    if (routing.offset[e + 1] > routing.offset[e]) wanted.push_back(static_cast<int32_t>(e));
  if (!weights.stream) {
    for (const int32_t expert : wanted) {
      const auto e = static_cast<size_t>(expert);
      use(ExpertRef{expert, weights.gate_proj[e], weights.up_proj[e], weights.down_proj[e]});
    }
    return;
  }
  weights.stream->begin(wanted);
  for (;;) {
    const std::vector<ExpertRef> batch = weights.stream->next();
    if (batch.empty()) return;
    for (const ExpertRef& e : batch) use(e);
  }
}

// y[t] = sum_a weights[t,a] down_e(silu(gate_e x_t) * up_e x_t), a ascending
Value experts(Ctx& ctx, const Value& x_TD, const std::shared_ptr<const Routing>& routing,
              const ExpertWeights& weights);

// A network that every token passes, beside the experts.
struct SharedExpert {
  const Weight &gate_proj, &up_proj, &down_proj;
};
// experts() + the shared network's y, with the same bits, without a tape or a stream: all gate and
// up products share a parallel region, all down products another, and one SwiGLU takes all hidden
// rows. `shared` may be null.
Value experts_forward(Ctx& ctx, const Value& x_TD, const Routing& routing,
                      const ExpertWeights& weights, const SharedExpert* shared);

// Records the gradient of weight * (sequence-wise balance loss) and returns the unweighted loss.
// first_row [num_seq+1].
double balance_loss(Ctx& ctx, const std::shared_ptr<const Routing>& routing,
                    const std::vector<int32_t>& first_row, int64_t num_experts_per_tok,
                    double weight);

}  // namespace fathom
