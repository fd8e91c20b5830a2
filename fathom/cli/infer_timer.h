// Times whole forward passes of a model on a cache that is already deep. The keys in it are random
// numbers: what a token costs does not depend on their values, and 32K of them need not be
// computed. Every timed pass takes other tokens, so that it goes through other experts and selects
// other keys.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fathom/model/transformer.h"

namespace fathom {

struct TimedPass {
  std::vector<double> pass_s;                   // of every pass, ascending
  double median_s = 0, best_s = 0, mean_s = 0;  // of one pass
  double spread = 0;                            // (90th - 10th percentile) / median

  void add(const std::vector<double>& more_s);
};

class InferTimer {
 public:
  // Takes the memory of a cache for max_depth + max_rows tokens, and for max_depth + 1 tokens of
  // each of `sequences`.
  InferTimer(const Ctx& ctx, const Model& model, KeySelection selection, CacheForm cache,
             int64_t max_depth, int64_t max_rows, int64_t sequences);

  // One pass over `rows` tokens behind `depth` others, with the logits of the last row. Uses the
  // threads of `ctx`.
  TimedPass run(Ctx& ctx, int64_t depth, int64_t rows, double seconds);

  // One pass over a token of each of `sequences` behind `depth` others, with all logits: a step of
  // continuous batching.
  TimedPass run_sequences(Ctx& ctx, int64_t depth, int64_t sequences, double seconds);

  // A step of speculative decoding: one token and `drafts` guesses verified, with all their logits,
  // then as many new guesses of the prediction layer.
  TimedPass run_with_drafts(Ctx& ctx, int64_t depth, int64_t drafts, double seconds);

  // Whether `rows` tokens at once and one by one give the same hidden states and logits, bit for
  // bit.
  bool same_bits(Ctx& ctx, int64_t depth, int64_t rows);

 private:
  struct Pass {
    Value hidden_TD, logits_TW;
  };
  Step make_step(int64_t token, int64_t rows, int64_t first);
  Pass forward_rows(Ctx& ctx, int64_t token, int64_t rows, int64_t first, bool all_logits);
  int64_t next_tokens(int64_t count);

  const Model& model_;
  KeySelection selection_;
  KvCache cache_;
  std::vector<int32_t> tokens_;
  int64_t turn_ = 0;
};

}  // namespace fathom
