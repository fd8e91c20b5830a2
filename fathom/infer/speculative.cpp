#include "fathom/infer/speculative.h"

#include <numeric>

#include "fathom/ops/basic.h"

namespace fathom {
namespace {

// The token at a position: known, or guessed.
int32_t token_at(const Sequence& s, int64_t position) {
  return position < s.size() ? s.tokens[static_cast<size_t>(position)]
                             : s.drafts[static_cast<size_t>(position - s.size())];
}

}  // namespace

void append_pages(const std::vector<int32_t>& pages, CachePages& to) {
  to.first_page.push_back(static_cast<int32_t>(to.page.size()));
  to.page.insert(to.page.end(), pages.begin(), pages.end());
}

// hidden_TD holds exactly the rows, packed. Returns the layer's output.
Value Drafter::run(const std::vector<DraftRows>& rows, const Value& hidden_TD,
                   KeySelection selection, KvCache& cache) {
  Step step;
  step.selection = selection;
  step.cache.cache = &cache;
  for (const DraftRows& r : rows) {
    std::vector<int32_t> next;
    for (int64_t i = r.first; i < r.first + r.size; ++i)
      next.push_back(token_at(*r.sequence, i + 1));
    step.add_sequence(next, r.first);
    append_pages(r.sequence->pages, step.cache);
  }
  std::vector<LayerOut> unused;
  return mtp_forward(ctx_, model_, 0, hidden_TD, step, &unused);
}

// One more draft for each sequence, from its row of hidden_TD, drawn as the verification will draw:
// with the same random number.
void Drafter::guess(const std::vector<DraftRows>& rows, const Value& hidden_TD) {
  const Value logits_TW = logits(ctx_, model_, hidden_TD);
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& s = *rows[i].sequence;
    const int64_t position = s.size() + static_cast<int64_t>(s.drafts.size());
    int32_t token = 0;
    try {
      token = draw_token(logits_row(logits_TW, static_cast<int64_t>(i)), s.request.params, position)
                  .token;
    } catch (const Error&) {
      // Logits that are not finite make a poor guess, nothing worse: the main model decides.
    }
    s.drafts.push_back(token);
  }
}

void Drafter::draft(const std::vector<DraftRows>& rows, const Value& hidden_TD,
                    KeySelection selection, KvCache& cache) {
  std::vector<int32_t> pick;
  std::vector<DraftRows> open;  // that want a guess
  std::vector<int32_t> last;    // their last rows, counted in `pick`
  for (const DraftRows& r : rows) {
    if (r.size == 0) continue;
    for (int64_t i = 0; i < r.size; ++i) pick.push_back(static_cast<int32_t>(r.first_row + i));
    r.sequence->drafts.clear();
    if (r.num_drafts == 0) continue;
    open.push_back(r);
    last.push_back(static_cast<int32_t>(pick.size()) - 1);
  }
  if (pick.empty()) return;
  std::vector<DraftRows> ran = rows;
  std::erase_if(ran, [](const DraftRows& r) { return r.size == 0; });
  Value out_TD =
      run(ran, select_rows(ctx_, hidden_TD, pick.data(), std::ssize(pick)), selection, cache);
  while (!open.empty()) {
    const Value last_TD = select_rows(ctx_, out_TD, last.data(), std::ssize(last));
    guess(open, last_TD);
    // Those that want more go on with the layer's own output one position further.
    std::vector<DraftRows> more;
    std::vector<int32_t> keep;
    for (size_t i = 0; i < open.size(); ++i) {
      DraftRows r = open[i];
      if (--r.num_drafts == 0) continue;
      r.first += r.size;
      r.size = 1;
      more.push_back(r);
      keep.push_back(static_cast<int32_t>(i));
    }
    open = std::move(more);
    if (open.empty()) break;
    out_TD = run(open, select_rows(ctx_, last_TD, keep.data(), std::ssize(keep)), selection, cache);
    last.resize(open.size());
    std::iota(last.begin(), last.end(), 0);
  }
}

}  // namespace fathom
