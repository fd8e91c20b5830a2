// One forward pass as data: which tokens, at which positions, of which sequences, against which
// cache, in which form.
#pragma once

#include <memory>
#include <vector>

#include "fathom/model/kv_cache.h"
#include "fathom/ops/attention.h"
#include "fathom/ops/moe.h"

namespace fathom {

// Two algebraic forms of MLA that differ in bits: rollouts and everything that compares log-probs
// use the absorbed one. The naive one needs every sequence to start at position 0 and no cache.
enum class AttnForm : uint8_t { kAbsorbed, kNaive };
enum class KeySelection : uint8_t {
  kDense,
  kSparse
};  // sparse: the indexer's top-k, in models that have one
// kFp8 simulates the published FP8 path: inputs of FP8 weights are rounded per 1 x 128, indexer
// queries and keys after a Hadamard rotation; kFp8Cache rounds the latent too. Forward only.
enum class Numerics : uint8_t { kExact, kFp8, kFp8Cache };

// Rows are packed: sequence b owns rows seqs.first_row[b] .. first_row[b+1]-1.
struct Step {
  std::vector<int32_t> token;  // [T]
  std::vector<int32_t> pos;    // [T], follows from seqs; filled by add_sequence
  SeqRows seqs{{0}, {}};
  AttnForm form = AttnForm::kAbsorbed;
  KeySelection selection = KeySelection::kSparse;
  Numerics numerics = Numerics::kExact;
  CachePages cache;                  // empty: keys are the step's own rows
  std::vector<View> forced_experts;  // per layer [T,A] i32 or empty: keep routing
  double indexer_kl_scale =
      0;  // adds scale * sum over rows and layers of the indexer's KL as a loss
  int64_t indexer_mass_topk = 0;  // measure the attention mass of that many best-scored keys
  bool all_scores = false;    // of the indexer: also where all keys are selected whatever they are
  double balance_weight = 0;  // of the sequence-wise balance loss, per MoE layer

  // Appends a sequence's tokens at positions first_pos ...
  void add_sequence(const std::vector<int32_t>& tokens, int64_t first_pos = 0);
  int64_t num_rows() const { return static_cast<int64_t>(token.size()); }
};

struct LayerOut {
  std::shared_ptr<const Routing> routing;  // null in dense layers
  Tensor sel_TK;                           // selected positions; empty when dense
  Tensor kl_T, mass_T;
  double balance = 0;
};

struct StepOut {
  Value hidden_TD;               // after the final norm
  std::vector<LayerOut> layers;  // one per layer, multi-token prediction layers last
};

}  // namespace fathom
