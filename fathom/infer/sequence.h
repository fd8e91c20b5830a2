// What the engine is asked for, what it answers, and a request on its way.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/infer/sampler.h"

namespace fathom {

using SequenceId = int64_t;

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  SampleParams params;
  int64_t num_top_logprobs = 0;  // alternatives reported with each token
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };
const char* finish_reason_name(FinishReason r);  // "", "stop", "length", "cancelled", "error"

// Which experts every forwarded token was routed to, and which keys it selected, prompt included:
// for replay and comparison in training.
struct RoutingRecord {
  int64_t num_rows = 0;                 // all tokens but the last, which was never forwarded
  std::vector<int64_t> layers;          // of the main model, those with experts
  int64_t num_experts_per_tok = 0;      // A
  std::vector<uint16_t> experts;        // [num_rows][layer][A], in the order of the router
  std::vector<int64_t> indexer_layers;  // of the main model, those that select; empty when dense
  std::vector<uint32_t> selection;      // [num_rows][layer]: selection_fingerprint
};

// One token, or the end of a sequence. Several events of a sequence may come from one step.
struct Event {
  SequenceId id = 0;
  int32_t token = -1;    // -1: the sequence ended without a token (cancelled, error, max_tokens 0)
  int64_t position = 0;  // of the token in its sequence
  float logp = 0;        // untruncated, at temperature 1; see row_logprob
  float behaviour_logp = 0;      // of the distribution sampled from
  std::vector<int32_t> support;  // what truncation kept; empty: everything
  std::vector<TokenLogp> top;    // num_top_logprobs of them
  int64_t weight_version = 0;    // of the weights that made this token
  FinishReason finished = FinishReason::kNone;
  std::string error;                             // kError: why
  std::shared_ptr<const RoutingRecord> routing;  // with the last event, when recorded
};

// A request being worked on. Keys of tokens [0, num_cached) are in the pages, in order of position.
struct Sequence {
  SequenceId id = 0;
  Request request;
  std::vector<int32_t> tokens;  // prompt, then what was generated
  std::vector<int32_t> drafts;  // guesses for the positions that follow
  std::vector<int32_t> pages;
  int64_t num_cached = 0;
  int64_t num_published = 0;  // rows that others can find
  FinishReason finished = FinishReason::kNone;

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_generated() const { return size() - static_cast<int64_t>(request.prompt.size()); }
  bool decoding() const { return num_cached + 1 == size(); }
};

}  // namespace fathom
