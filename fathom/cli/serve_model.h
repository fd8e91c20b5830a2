// Loading a model that is to answer: within a limit of memory, in codes, with progress; and what it
// cost.
#pragma once

#include <optional>
#include <string>

#include "fathom/base/options.h"
#include "fathom/infer/engine.h"

namespace fathom {

struct ExpertStats;

struct ServeOptions {
  std::string quant = "none", cache = "f32";
  std::string memory;     // "8G"; empty: what is free, where the model is larger than that
  bool uncached = false;  // keep the page cache out too
  bool packed = false;    // store packed weights for the next load
  void fields(OptionSet& o);
};

// What the engine will need beside the weights.
struct ServeSize {
  int64_t num_pages = 0;   // of the key cache
  int64_t num_rows = 512;  // of one forward pass
  int64_t num_sampled = 1;
};

// Throws Error for every defect of the folder, and when the memory is too small. Prints what coding
// has lost, when weights were coded, and what is streamed.
Model load_to_serve(const Ctx& ctx, const std::string& folder, const ServeOptions& options,
                    const ServeSize& size);

// A line for each class of weights that were coded at load: their number, the relative error, the
// worst one; empty when none were.
std::string quant_text(const std::vector<QuantLoss>& losses);
// "q8", "q4", "none"; throws UsageError that names --quant.
Quant parse_quant_option(const std::string& text);
CacheForm parse_cache_option(const std::string& text);  // the same of --cache
// "2.41 GB of weights for every token, 0.10 GB of key cache and activations, 55 of 512 experts"
std::string plan_text(const Model& model);
// "128 experts used, 12.5 % of them in memory, 5.10 GB read, ..."; empty when nothing is streamed.
std::string stream_text(const ExpertStats& stats, size_t num_tokens, double seconds);
// "process 5.62 GB at most, 5.10 GB now: 5.02 GB its own, 0.08 GB of files"
std::string process_text();

}  // namespace fathom
