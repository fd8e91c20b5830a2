// The cost of a training step of a small DeepSeek-V3-shaped model, against the machine's own
// multiply-add peak.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/kernels/grad_products.h"
#include "fathom/model/config.h"

namespace fathom {

struct BenchStepOptions {
  int64_t threads = 0;  // 0: all cores
  int64_t batch_size = 16;
  int64_t seq_len = 256;
  int64_t steps = 8, warmup_steps = 2;
  std::string form = "naive";
  int64_t rounds = 1;
  int64_t rows_per_pass = 4096;
  std::string gradient_products = "auto";
  std::string peer;

  void fields(OptionSet& o) {
    o.add("threads", &threads, "threads; 0: all cores");
    o.add("batch_size", &batch_size, "sequences of a step");
    o.add("seq_len", &seq_len, "tokens of a sequence");
    o.add("steps", &steps, "timed steps");
    o.add("warmup_steps", &warmup_steps, "steps before them");
    o.add("rows_per_pass", &rows_per_pass,
          "rows of one forward and backward pass; gradients add up over the passes");
    o.add("rounds", &rounds, "how often the steps (and the peer) are run, in turn");
    o.add("gradient_products", &gradient_products,
          "of the backward pass: auto (the fastest of this machine) or f32");
    o.add("peer", &peer, "command that prints \"tokens/s median N\"; run in turn with the steps");
    o.add("form", &form, "of attention: naive (as the PyTorch script) or absorbed");
  }
};

struct BenchStepResult {
  double first_loss = 0, last_loss = 0;   // of one repeated batch: must fall
  std::vector<double> step_s;             // timed steps of all rounds
  std::vector<double> optimizer_s;        // of these, AdamW and packing
  std::vector<double> peak_flops;         // measured between the steps
  std::vector<double> peer_tokens_per_s;  // one per round
  double flop_per_token = 0;  // 6 per active parameter and 3 x the forward scores over all pairs
  int64_t tokens = 0, parameters = 0, active = 0;
  int64_t peak_bytes = 0;  // of tensors
  GradProducts gradient_products = GradProducts::kF32;
};

// 12.03 M parameters, 34.6 MFLOP a token: the shape of the PyTorch script that the figure is
// compared with.
ModelConfig bench_step_config();
BenchStepResult bench_step(const BenchStepOptions& options);
// Runs it and prints; returns an exit code.
int run_bench_step(const BenchStepOptions& options);

}  // namespace fathom
