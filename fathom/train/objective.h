// The training objectives as one function: a batch goes in, gradients of the total loss are left in
// the parameters.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/model/transformer.h"

namespace fathom {

// Packed training sequences; sequence b owns rows bounds[b] .. bounds[b+1]-1 and starts at position
// 0.
struct TrainBatch {
  std::vector<int32_t> token, target;  // [T]; target -1: unknown (the last row of a cut text)
  std::vector<double> weight;   // [T] of each row's loss, usually 0 or 1; 0 where the target is -1
  std::vector<int32_t> bounds;  // [num_seq+1]

  int64_t num_rows() const { return static_cast<int64_t>(token.size()); }
};

struct ObjectiveOptions {
  std::string attention = "dense";  // or "sparse"
  std::string form = "absorbed";    // or "naive": cheaper, other bits than the sampler's
  double lm_weight = 1;
  double mtp_weight = 0;      // lambda of the V3 report, 0.3 then 0.1
  double balance_weight = 0;  // alpha of the sequence-wise balance loss, 1e-4 in V3
  double indexer_kl_weight = 0;
  int64_t indexer_mass_topk = 0;

  void fields(OptionSet& o) {
    o.add("attention", &attention, "dense, or sparse: only the keys that the indexer selects");
    o.add("form", &form, "absorbed (the sampler's bits) or naive (cheaper)");
    o.add("lm_weight", &lm_weight, "of the next-token loss");
    o.add("mtp_weight", &mtp_weight, "lambda of multi-token prediction");
    o.add("balance_weight", &balance_weight, "alpha of the sequence-wise balance loss");
    o.add("indexer_kl_weight", &indexer_kl_weight,
          "of the indexer's KL to the attention, per-row mean, summed over layers");
    o.add("indexer_mass_topk", &indexer_mass_topk,
          "report the attention mass of that many best-scored keys");
  }
};

// Denominators over the whole batch, so that a batch cut into parts gives the same gradients up to
// rounding.
struct LossCounts {
  double lm = 0, mtp = 0;  // sums of weights
  int64_t rows = 0, mtp_rows = 0, num_seq = 0;
};
LossCounts count_losses(const TrainBatch& batch);

struct LossReport {
  double total = 0, lm = 0, mtp = 0;  // means
  double balance = 0;                 // unweighted, summed over MoE layers
  std::vector<double> layer_balance;  // per layer, 0 in dense ones
  std::vector<double> layer_kl;       // per layer mean over rows; 0 where there is no indexer
  std::vector<double> layer_mass;     // per layer mean over rows
  std::vector<std::vector<int64_t>> expert_count;  // per layer, empty in dense ones

  double mean_kl() const;  // over layers with an indexer
  double mean_mass() const;
  void add(const LossReport& part);  // of another part of the same batch
  template <class F>
  void each(F&& f) {
    f(total), f(lm), f(mtp), f(balance);
    f(layer_balance), f(layer_kl), f(layer_mass), f(expert_count);
  }
};

// Forward over one part of a batch. With a tape in ctx the adjoints run too and gradients are added
// to those parameters that need one. `counts` are those of the whole batch.
LossReport run_objective(Ctx& ctx, const Model& model, const TrainBatch& part,
                         const LossCounts& counts, const ObjectiveOptions& options);

// Sequences first .. of a batch, as many as fit into max_rows (at least one); moves `first` on.
TrainBatch take_part(const TrainBatch& batch, int64_t max_rows, size_t* first);

}  // namespace fathom
