// Decides which rows of which sequences make the next step, and gives them pages: running sequences
// first, then pieces of prompts up to a budget, oldest first. When pages run out, the youngest
// sequence gives its pages back and is computed anew later.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "fathom/infer/prefix_cache.h"
#include "fathom/infer/sequence.h"

namespace fathom {

struct SchedulerOptions {
  int64_t max_step_tokens = 512;  // rows of a step; decoding rows always go in
  int64_t max_sequences = 64;     // that run at the same time
  int64_t max_context = 0;        // tokens of a sequence
  int64_t num_drafts = 0;         // guesses verified with each token
  bool share_prefixes = true;
};

// Rows [first, first + size) of one sequence, by position; drafts are the last of them.
struct PlannedRows {
  Sequence* sequence = nullptr;
  int64_t first = 0, size = 0;
  int64_t num_drafts = 0;
  bool samples = false;  // the sequence's last token is among the rows
};

// One thread at a time. Owns the sequences.
class Scheduler {
 public:
  Scheduler(PagedCache& pages, PrefixCache& prefixes, const SchedulerOptions& options);
  ~Scheduler();

  Sequence& add(std::unique_ptr<Sequence> sequence);
  // Empty when nothing is left to do. Pages for all rows are there.
  std::vector<PlannedRows> plan();
  // After a step: makes the sequence's full pages known to others, and those of its prompt.
  void publish(Sequence& sequence);
  // Makes all its rows known, gives its pages back and forgets it.
  void remove(SequenceId id);
  Sequence* find(SequenceId id);  // null: not here
  void restart_all();             // forgets all keys, for instance after a change of the weights
  int64_t draft_limit(const Sequence& s) const;  // drafts that could still be of use

  bool idle() const { return running_.empty() && waiting_.empty(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_preempted() const { return num_preempted_; }    // so far
  int64_t num_reused_tok() const { return num_reused_tok_; }  // keys found instead of computed

 private:
  using Owned = std::unique_ptr<Sequence>;
  void admit();
  bool try_start(Sequence& s);
  bool should_wait_for_prefix(const Sequence& s, int64_t known_pages) const;
  void copy_known_rows(Sequence& s);
  void publish_up_to(Sequence& s, int64_t num_rows);
  bool reserve(Sequence& s, int64_t end);
  void give_back(Sequence& s);
  void preempt_youngest();
  std::vector<PlannedRows> choose_rows();

  PagedCache& pages_;
  PrefixCache& prefixes_;
  SchedulerOptions options_;
  std::deque<Owned> waiting_, running_;  // both ordered by id
  int64_t num_preempted_ = 0, num_reused_tok_ = 0;
};

}  // namespace fathom
