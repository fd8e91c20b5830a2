// fathom bench infer: prefill and decode of a whole model at several depths, against the machine's
// own limits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/options.h"

namespace fathom {

struct BenchInferOptions {
  std::string model = "s15m";  // a checkpoint folder, or what read_shape takes
  std::vector<std::string> types = {"f32", "bf16", "fp8", "q8", "q4"};
  std::vector<double> threads, depths = {0, 2048, 8192, 32768};
  int64_t prefill = 512;
  double seconds = 0.5;
  int64_t sequences = 1, busy = 0, drafts = 0, rounds = 1;
  bool dense = false;
  std::string cache = "f32", json, plot = "bench_infer.html", peer;
  double peer_seconds = 600;

  void fields(OptionSet& o) {
    o.add("types", &types,
          "weights of a shape: f32, bf16, fp8, q8, q4; a folder's: as stored, q8, q4");
    o.add("threads", &threads, "threads, comma separated; none: 1 and all cores");
    o.add("depths", &depths, "tokens that are in the cache before, comma separated");
    o.add("prefill", &prefill, "tokens of a prompt's piece");
    o.add("seconds", &seconds, "time for each figure");
    o.add("sequences", &sequences, "decode also so many sequences in each step");
    o.add("busy", &busy, "decode also beside so many processes that keep the processor busy");
    o.add("drafts", &drafts,
          "time also steps with so many guesses of the prediction layer: from which share of right "
          "ones they pay");
    o.add("cache", &cache, "key cache: f32, bf16, fp8, int8 or int8-latent");
    o.add("dense", &dense, "attend to all tokens, also where the model has an indexer");
    o.add(
        "peer", &peer,
        "command that prints its speed as llama-bench does, or \"tokens/s median N\" of decoding; "
        "run for each row, where {threads}, {depth}, {prefill} and {sequences} stand for the "
        "row's");
    o.add("peer_seconds", &peer_seconds, "longest time for one run of the peer");
    o.add("rounds", &rounds, "how often each figure (and the peer's) is taken, in turn");
    o.add("json", &json, "also write one JSON object a line to this file");
    o.add("plot", &plot, "HTML page with the plot; empty: none");
  }
};

// Runs it and prints; returns an exit code: kExitFailed when a token computed alone has other bits
// than the same token in a prompt.
int run_bench_infer(const BenchInferOptions& options);

}  // namespace fathom
