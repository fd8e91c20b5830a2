// The language-model head with its loss.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/ops/linear.h"

namespace fathom {

// sum_t weight[t] * nll[t] with nll = -log softmax(h W^T)[target]. Logits are formed in chunks of
// rows and never all at once; with a tape the gradients to h and W are computed on the way. target
// < 0 is skipped.
struct HeadLoss {
  double loss = 0;          // sum_t weight[t] nll[t], t ascending, f64
  std::vector<double> nll;  // [T]; 0 where skipped
};
HeadLoss head_loss(Ctx& ctx, const Value& h_TD, const Weight& head,
                   const std::vector<int32_t>& target, const std::vector<double>& weight);

}  // namespace fathom
