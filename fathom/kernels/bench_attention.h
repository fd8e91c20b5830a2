// Measures what attention costs at a position of a long context: dense over the latent cache, and
// sparse (lightning indexer, selection, attention over the selected latents). Prints nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "fathom/kernels/kernels.h"

namespace fathom {

// One layer; the letters of docs/symbols.md. The defaults keep DeepSeek-V3.2's ratio of indexer to
// attention work for a key (1 : 18).
struct AttentionBenchShape {
  int64_t H = 16, C = 128, R = 32;  // attention
  int64_t J = 8, I = 32, K = 1024;  // indexer
  bool bf16_keys = false;
  // Correlation of the index queries of neighbours in a chunk, 0 to 1. Trained neighbours select
  // two thirds of their keys together or more, random ones no more than chance.
  double alike = 0;
};

struct AttentionBenchCase {
  bool decode =
      false;  // one token at a time; else a chunk of `chunk` tokens that ends at `position`
  int64_t position = 0;  // keys that the last token sees
  int64_t chunk = 128;
};

struct AttentionBenchRow {
  AttentionBenchCase at;
  int repetitions = 0;
  // Medians, microseconds a token.
  double dense_us = 0, select_us = 0, gathered_us = 0, sparse_us = 0;  // sparse = select + gathered
  double dense_best_us = 0, sparse_best_us = 0;                        // fastest repetition
  double dense_spread = 0, sparse_spread = 0;  // (90th - 10th percentile) / median
  double shared = 0;  // of a token's keys, what the token before selected too; mean over a chunk
};

class AttentionBench {
 public:
  // Fills `max_position` keys with random numbers, in cache pages.
  AttentionBench(const Kernels& kernels, const Exec& exec, const AttentionBenchShape& shape,
                 int64_t max_position);
  ~AttentionBench();
  AttentionBench(const AttentionBench&) = delete;
  AttentionBench& operator=(const AttentionBench&) = delete;

  AttentionBenchRow run(const AttentionBenchCase& c, double seconds);

  // Worst difference of the outputs from the reference kernels, relative to the largest output,
  // over small cases: dense and sparse, chunk and decode. Selections are compared through the
  // scores of what was chosen.
  double check();

 private:
  struct Data;
  std::unique_ptr<Data> d_;
};

}  // namespace fathom
