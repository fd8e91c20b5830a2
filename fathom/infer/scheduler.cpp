#include "fathom/infer/scheduler.h"

#include <algorithm>

namespace fathom {
namespace {

int64_t pages_for(int64_t num_tokens) { return (num_tokens + kPageTokens - 1) / kPageTokens; }

bool younger(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  return a->id < b->id;
}

void insert_by_id(std::deque<std::unique_ptr<Sequence>>& queue, std::unique_ptr<Sequence> s) {
  const auto at = std::upper_bound(queue.begin(), queue.end(), s, younger);
  queue.insert(at, std::move(s));
}

int64_t common_pages(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto [end, unused] = std::ranges::mismatch(a, b);
  return (end - a.begin()) / kPageTokens;
}

}  // namespace

const char* finish_reason_name(FinishReason r) {
  switch (r) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

Scheduler::Scheduler(PagedCache& pages, PrefixCache& prefixes, const SchedulerOptions& options)
    : pages_(pages), prefixes_(prefixes), options_(options) {}

Scheduler::~Scheduler() {
  for (const Owned& s : running_) give_back(*s);
}

Sequence& Scheduler::add(Owned sequence) {
  Sequence& s = *sequence;
  waiting_.push_back(std::move(sequence));
  return s;
}

Sequence* Scheduler::find(SequenceId id) {
  for (const auto* queue : {&running_, &waiting_})
    for (const Owned& s : *queue)
      if (s->id == id) return s.get();
  return nullptr;
}

void Scheduler::remove(SequenceId id) {
  for (auto* queue : {&running_, &waiting_}) {
    const auto it = std::ranges::find_if(*queue, [id](const Owned& s) { return s->id == id; });
    if (it == queue->end()) continue;
    publish_up_to(**it, (*it)->num_cached);
    give_back(**it);
    queue->erase(it);
    return;
  }
}

void Scheduler::give_back(Sequence& s) {
  for (const int32_t page : s.pages) pages_.release(page);
  s.pages.clear();
  s.drafts.clear();
  s.num_cached = s.num_published = 0;
}

void Scheduler::restart_all() {
  while (!running_.empty()) {
    give_back(*running_.back());
    insert_by_id(waiting_, std::move(running_.back()));
    running_.pop_back();
  }
  prefixes_.clear_for_good();
}

void Scheduler::preempt_youngest() {
  give_back(*running_.back());
  insert_by_id(waiting_, std::move(running_.back()));
  running_.pop_back();
  ++num_preempted_;
}

// False, with everything as it was but some pages taken, when pages run out.
bool Scheduler::reserve(Sequence& s, int64_t end) {
  while (static_cast<int64_t>(s.pages.size()) < pages_for(end)) {
    const std::optional<int32_t> page = prefixes_.take_page();
    if (!page) return false;
    s.pages.push_back(*page);
  }
  return true;
}

// The rows that the page after the full ones has in common with a known page: a copy of it, since
// the rows that follow will differ.
void Scheduler::copy_known_rows(Sequence& s) {
  const std::optional<PrefixCache::Tail> known =
      prefixes_.tail(std::span(s.tokens).first(static_cast<size_t>(s.size() - 1)));
  if (!known) return;
  pages_.retain(known->page);  // so that taking a page cannot take this one
  if (const std::optional<int32_t> own = prefixes_.take_page()) {
    pages_.copy_page(known->page, *own);
    s.pages.push_back(*own);
    s.num_cached += known->num_rows;
  }
  pages_.release(known->page);
}

// Somebody is computing more of the same beginning than is known so far: cheaper to wait for it.
bool Scheduler::should_wait_for_prefix(const Sequence& s, int64_t known_pages) const {
  return std::ranges::any_of(running_, [&](const Owned& r) {
    return !r->decoding() && common_pages(r->tokens, s.tokens) > known_pages;
  });
}

bool Scheduler::try_start(Sequence& s) {
  if (options_.share_prefixes) {
    s.pages = prefixes_.match(s.tokens);
    if (should_wait_for_prefix(s, std::ssize(s.pages))) {
      give_back(s);
      return false;
    }
  }
  const int64_t need = pages_for(s.size() + 1) - std::ssize(s.pages);
  // Everyone who runs may want another page soon: without one to spare, starting would only
  // preempt.
  if (!running_.empty() && pages_.num_free() + prefixes_.num_evictable() < need + num_running()) {
    give_back(s);
    return false;
  }
  if (!options_.share_prefixes) return true;
  prefixes_.restore(s.tokens, s.pages);
  // The last token goes through the model in any case, to get its logits, and its row is written
  // then: into a page of the sequence's own.
  if (std::ssize(s.pages) * kPageTokens == s.size()) {
    pages_.release(s.pages.back());
    s.pages.pop_back();
  }
  s.num_cached = std::ssize(s.pages) * kPageTokens;
  copy_known_rows(s);
  num_reused_tok_ += s.num_cached;
  return true;
}

void Scheduler::admit() {
  for (size_t i = 0; i < waiting_.size() && num_running() < options_.max_sequences;) {
    if (!try_start(*waiting_[i])) {
      ++i;
      continue;
    }
    insert_by_id(running_, std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

int64_t Scheduler::draft_limit(const Sequence& s) const {
  const int64_t left = s.request.params.max_tokens - s.num_generated() - 1;
  return std::max<int64_t>(
      0, std::min({options_.num_drafts, left, options_.max_context - s.size() - 1}));
}

// Rows by sequence, without looking at pages.
std::vector<PlannedRows> Scheduler::choose_rows() {
  int64_t budget = options_.max_step_tokens;
  for (const Owned& s : running_)
    if (s->decoding()) budget -= 1 + static_cast<int64_t>(s->drafts.size());
  budget = std::max<int64_t>(budget, 1);
  std::vector<PlannedRows> rows;
  for (const Owned& s : running_) {
    PlannedRows r{.sequence = s.get(), .first = s->num_cached};
    if (s->decoding()) {
      r.num_drafts = static_cast<int64_t>(s->drafts.size());
      r.size = 1 + r.num_drafts;
    } else {
      r.size = std::min(s->size() - s->num_cached, budget);
      budget -= r.size;
    }
    r.samples = r.first + r.size >= s->size();
    rows.push_back(r);
  }
  return rows;
}

std::vector<PlannedRows> Scheduler::plan() {
  admit();
  std::vector<PlannedRows> rows = choose_rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& s = *rows[i].sequence;
    if (rows[i].size == 0) continue;
    // Drafting writes its own layer's rows a little ahead.
    const int64_t end =
        std::min(rows[i].first + rows[i].size + options_.num_drafts, options_.max_context);
    while (!reserve(s, end)) {
      FM_CHECK(num_running() > 1, "{} pages are too few for {} tokens", pages_.num_pages(), end);
      preempt_youngest();
      rows.resize(running_.size());
      if (i >= rows.size()) break;  // it was the youngest itself
    }
  }
  std::erase_if(rows, [](const PlannedRows& r) { return r.size == 0; });
  return rows;
}

void Scheduler::publish(Sequence& s) {
  const auto prompt = std::ssize(s.request.prompt);
  const bool prompt_done = s.num_cached >= prompt && s.num_published < prompt;
  publish_up_to(s, prompt_done ? s.num_cached : s.num_cached / kPageTokens * kPageTokens);
}

void Scheduler::publish_up_to(Sequence& s, int64_t num_rows) {
  if (!options_.share_prefixes || num_rows <= s.num_published) return;
  if (s.finished == FinishReason::kError) return;  // its keys may be no numbers
  s.num_published = num_rows;
  prefixes_.insert(std::span(s.tokens).first(static_cast<size_t>(num_rows)),
                   std::span(s.pages).first(static_cast<size_t>(pages_for(num_rows))));
}

}  // namespace fathom
