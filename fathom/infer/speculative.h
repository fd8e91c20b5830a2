// Speculative decoding with the model's own multi-token prediction layer (DeepSeek-V3 report, 2.2;
// model spec 3.7). The layer guesses the tokens after the next one; the following step verifies
// them as extra rows of the main model. A guess counts only when it is exactly the token that the
// main model draws at that position, so the output is that of plain decoding, greedy or sampled.
//
// Row i of the layer reads the main model's hidden state i and token i+1, and keeps its keys in
// cache layer num_hidden_layers. Rows of refused guesses are overwritten by the next ones. The last
// row of a shared page knows the token that followed for the page's first owner: at worst a guess
// is poorer for it.
#pragma once

#include <vector>

#include "fathom/infer/sequence.h"
#include "fathom/model/transformer.h"

namespace fathom {

// Rows of one sequence that the main model has just computed and that count: positions
// [first, first + size) in rows first_row ... of its hidden states. sequence->tokens reaches at
// least one position further.
struct DraftRows {
  Sequence* sequence = nullptr;
  int64_t first = 0, size = 0, first_row = 0;
  int64_t num_drafts = 0;  // to make; 0: only the keys
};

class Drafter {
 public:
  Drafter(Ctx& ctx, const Model& model) : ctx_(ctx), model_(model) {}
  // Runs the layer over `rows` and sets the drafts of their sequences. Pages for positions up to
  // first + size + num_drafts - 2 must be there. Guesses after the first feed the layer its own
  // output.
  void draft(const std::vector<DraftRows>& rows, const Value& hidden_TD, KeySelection selection,
             KvCache& cache);

 private:
  Value run(const std::vector<DraftRows>& rows, const Value& hidden_TD, KeySelection selection,
            KvCache& cache);
  void guess(const std::vector<DraftRows>& rows, const Value& hidden_TD);

  Ctx& ctx_;
  const Model& model_;
};

// Appends a sequence's pages to the cache part of a step.
void append_pages(const std::vector<int32_t>& pages, CachePages& to);

}  // namespace fathom
