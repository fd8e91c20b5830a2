// fathom bench attention: cost of a token against its position, dense and sparse, as one table and
// one plot.
#pragma once

#include <cstdint>
#include <string>

#include "fathom/base/options.h"

namespace fathom {

struct BenchAttentionOptions {
  int64_t threads = 0;
  int64_t min_position = 1024, max_position = 65536;
  int64_t num_attention_heads = 16, kv_lora_rank = 128, qk_rope_head_dim = 32;
  int64_t index_n_heads = 8, index_head_dim = 32, index_topk = 1024;
  int64_t chunk = 128;
  double seconds = 0.4, alike = 0;
  bool bf16 = false;
  std::string json, plot = "bench_attention.html";

  void fields(OptionSet& o) {
    o.add("threads", &threads, "threads; 0: all cores");
    o.add("min_position", &min_position, "first position; doubled for each row");
    o.add("max_position", &max_position, "last position");
    o.add("num_attention_heads", &num_attention_heads, "heads of attention");
    o.add("kv_lora_rank", &kv_lora_rank, "width of the latent");
    o.add("qk_rope_head_dim", &qk_rope_head_dim, "width of the rotary key");
    o.add("index_n_heads", &index_n_heads, "heads of the indexer");
    o.add("index_head_dim", &index_head_dim, "width of an indexer key");
    o.add("index_topk", &index_topk, "keys that a token selects");
    o.add("chunk", &chunk, "tokens of a prefill step");
    o.add(
        "alike", &alike,
        "correlation of the index queries of neighbouring tokens, 0 to 1; the more, the more keys "
        "they share");
    o.add("seconds", &seconds, "time for each row and mode");
    o.add("bf16", &bf16, "keep the cache in bf16 instead of f32");
    o.add("json", &json, "also write one JSON object a line to this file");
    o.add("plot", &plot, "HTML page with the plot; empty: none");
  }
};

// Runs it and prints; returns an exit code: kExitFailed when outputs differ from the reference.
int run_bench_attention(const BenchAttentionOptions& options);

}  // namespace fathom
