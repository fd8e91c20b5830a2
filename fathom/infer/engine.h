// Continuous batching: any number of requests share one forward pass per step. What a request gets
// depends on the request alone, bit for bit; how it was batched, cut, preempted or found in the
// prefix cache does not show. The log-probs are those of the training forward on the finished text.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fathom/infer/draft_rule.h"
#include "fathom/infer/scheduler.h"
#include "fathom/infer/speculative.h"

namespace fathom {

struct EngineOptions {
  int64_t num_pages = 256;        // of 64 tokens
  int64_t max_step_tokens = 512;  // rows of a step; long prompts are cut
  int64_t max_sequences = 64;     // running at the same time
  int64_t max_context = 0;        // tokens of a sequence; 0: what the model and the pages allow
  int64_t num_drafts = 0;         // speculative decoding; needs a multi-token prediction layer
  bool drafts_must_pay = false;   // and only as long as it is measured to be faster (DraftRule)
  bool prefix_cache = true;
  bool record_routing = false;
  KeySelection selection = KeySelection::kSparse;  // for models with an indexer
  CacheForm cache =
      CacheForm::kF32;  // the others are smaller, and then log-probs are not training's
  // Where shared prefixes are kept beyond memory and process; the engine adds what it decides to
  // the owner. Until the weights change.
  std::optional<PrefixStoreOptions> store;
  void fields(OptionSet& o);
};

struct EngineStats {
  int64_t num_steps = 0, num_rows = 0;        // forward passes and their rows
  int64_t num_drafted = 0, num_accepted = 0;  // speculative decoding
  bool drafting_over = false;                 // it was slower (EngineOptions::drafts_must_pay)
  int64_t num_preempted = 0, num_reused_tok = 0;
  double acceptance() const {
    return num_drafted ? static_cast<double>(num_accepted) / static_cast<double>(num_drafted) : 0;
  }
};

// One thread owns an engine. ctx (f32, without a tape) and model must outlive it.
class Engine {
 public:
  // Throws Error for options that the model cannot follow.
  Engine(Ctx& ctx, const Model& model, const EngineOptions& options);

  // Throws Error for a request that can never run: empty prompt, unknown tokens, too long, bad
  // parameters.
  SequenceId add(Request request);
  // One forward pass. Tokens in order per sequence; a sequence's last event has `finished` set. A
  // sequence whose logits are not finite ends with kError, the others go on.
  std::vector<Event> step();
  bool idle() const { return scheduler_.idle() && pending_.empty(); }
  // The sequence ends with a kCancelled event in the next step; its keys stay in the prefix cache.
  // False: unknown or over.
  bool cancel(SequenceId id);

  // The weights were changed in place: keys are computed anew, none are kept in the store any more,
  // and events carry `version` from now on.
  void weights_changed(int64_t version);
  // Forgets all shared prefixes in memory.
  void clear_prefixes() { prefixes_.clear(); }

  int64_t num_waiting() const { return scheduler_.num_waiting(); }
  int64_t num_running() const { return scheduler_.num_running(); }
  int64_t num_free_pages() const { return pages_.num_free(); }
  int64_t max_context() const { return max_context_; }
  EngineStats stats() const;
  PrefixStore* store() { return prefixes_.store(); }  // null without one; for warnings and figures
  const Model& model() const { return model_; }

 private:
  struct Sampled;
  Step make_step(const std::vector<PlannedRows>& plan);
  void record_routing(const std::vector<PlannedRows>& plan, const Step& step, const StepOut& out);
  std::vector<Sampled> sample(const std::vector<PlannedRows>& plan, const Step& step,
                              const Value& hidden_TD);
  void draw(const View& logits_TW, Sampled& s) const;
  void draft(const std::vector<PlannedRows>& plan, const Step& step, const Value& hidden_TD);
  void count_for_rule(const std::vector<PlannedRows>& plan, const std::vector<Sampled>& sampled,
                      double seconds);
  std::shared_ptr<const RoutingRecord> routing_of(const Sequence& s);
  std::vector<int64_t> recorded_indexer_layers() const;

  Ctx& ctx_;
  const Model& model_;
  EngineOptions options_;
  int64_t max_context_;
  KeySelection selection_;
  PagedCache pages_;
  PrefixCache prefixes_;
  Scheduler scheduler_;
  Drafter drafter_;
  DraftRule draft_rule_;
  std::vector<Event> pending_;  // for the next step()
  EngineStats stats_;
  SequenceId next_id_ = 0;
  int64_t weight_version_ = 0;
};

// Log-probs of given tokens: result[b][i] is that of sequences[b][i + 1] after [0 .. i]. One packed
// forward without a cache. Equal to what an engine records, bit for bit.
std::vector<std::vector<float>> score(Ctx& ctx, const Model& model,
                                      const std::vector<std::vector<int32_t>>& sequences,
                                      KeySelection selection = KeySelection::kSparse);

// What a model can do: sparse only with an indexer.
KeySelection usable_selection(const ModelConfig& config, KeySelection wanted);

}  // namespace fathom
