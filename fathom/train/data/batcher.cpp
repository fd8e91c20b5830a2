#include "fathom/train/data/batcher.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr size_t kOpenWindows = 32;       // that fit_windows chooses from
constexpr uint64_t kShortestFimText = 8;  // content tokens; shorter documents stay as they are
constexpr uint64_t kFimTokens = 3;

void check_options(const BatchOptions& o, const BatchTokens& tokens) {
  const auto bad = [](const std::string& what) { throw Error(Code::kInvalidArgument, what); };
  if (o.batch_size < 1) bad(fmt::format("batch_size is at least 1, not {}", o.batch_size));
  if (o.seq_len < 1) bad(fmt::format("seq_len is at least 1, not {}", o.seq_len));
  if (o.batch_size > std::numeric_limits<int32_t>::max() / o.seq_len) {
    bad(fmt::format("batch_size {} times seq_len {} is more rows than a batch can have",
                    o.batch_size, o.seq_len));
  }
  if (!(o.fim_rate >= 0 && o.fim_rate <= 1)) {
    bad(fmt::format("fim_rate is a share of 0 to 1, not {}", o.fim_rate));
  }
  if (o.fim_rate > 0 && (tokens.fim_begin < 0 || tokens.fim_hole < 0 || tokens.fim_end < 0)) {
    throw Error(Code::kInvalidArgument,
                "fim_rate is not 0, but the tokenizer has no fill-in-the-middle tokens",
                "set fim_rate = 0 or train the tokenizer with them");
  }
}

}  // namespace

Batcher::Batcher(std::vector<std::shared_ptr<const Shard>> shards, BatchOptions options,
                 BatchTokens tokens)
    : shards_(std::move(shards)), options_(options), tokens_(tokens) {
  check_options(options_, tokens_);
  first_document_.push_back(0);
  for (const auto& shard : shards_) {
    const ShardInfo &one = shard->info(), &first = shards_[0]->info();
    if (one.vocab_size != first.vocab_size || one.tokenizer_id != first.tokenizer_id) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("{} and {} were packed with different tokenizers", shards_[0]->path(),
                              shard->path()),
                  "pack all data with one tokenizer");
    }
    first_document_.push_back(first_document_.back() + shard->num_documents());
  }
  if (first_document_.back() > std::numeric_limits<uint32_t>::max()) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{} documents are more than 2^32", first_document_.back()));
  }
  make_plan(0);
  if (plan_.pieces.empty()) {
    throw Error(Code::kInvalidArgument, "the shards hold no document of two tokens or more",
                "check what was packed");
  }
}

Batcher::Place Batcher::place(uint64_t document) const {
  const auto after = std::upper_bound(first_document_.begin(), first_document_.end(), document);
  const size_t i = static_cast<size_t>(after - first_document_.begin()) - 1;
  const Shard& shard = *shards_[i];
  const uint64_t local = document - first_document_[i];
  return {&shard, shard.document_begin(local), shard.document_begin(local + 1)};
}

bool Batcher::in_fim_form(uint64_t epoch, uint64_t document, uint64_t size, bool masked) const {
  if (options_.fim_rate == 0 || masked || size < kShortestFimText + 2) return false;
  Rng rng(static_cast<uint64_t>(options_.seed), "data.fim", hash_mix(epoch, document));
  return rng.uniform() < options_.fim_rate;
}

uint64_t Batcher::rows_of(uint64_t epoch, uint64_t document) const {
  const Place at = place(document);
  const uint64_t size = at.end - at.begin;
  return size - 1 +
         (in_fim_form(epoch, document, size, at.shard->info().has_loss_mask) ? kFimTokens : 0);
}

void Batcher::load_piece(const Piece& piece) {
  const Place at = place(piece.document);
  const bool masked = at.shard->info().has_loss_mask;
  const uint64_t size = at.end - at.begin, wanted = uint64_t{piece.rows} + 1;
  if (in_fim_form(plan_.epoch, piece.document, size, masked)) {
    text_.resize(size);
    at.shard->copy_tokens(at.begin, at.end, text_.data());
    to_fim_form(piece.document);
    text_.erase(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(piece.begin));
    text_.resize(wanted);
    text_loss_.assign(wanted, 1);
    return;
  }
  const uint64_t begin = at.begin + piece.begin;
  text_.resize(wanted);
  text_loss_.resize(wanted);
  at.shard->copy_tokens(begin, begin + wanted, text_.data());
  for (uint64_t i = 0; i < wanted; ++i) text_loss_[i] = at.shard->loss(begin + i);
}

// Prefix, suffix, middle (V3 section 4.1), split between tokens:
// BOS fim_begin PREFIX fim_hole SUFFIX fim_end MIDDLE EOS
void Batcher::to_fim_form(uint64_t document) {
  Rng rng(static_cast<uint64_t>(options_.seed), "data.fim_cuts", hash_mix(plan_.epoch, document));
  const uint64_t content = text_.size() - 2;  // between BOS and EOS
  uint64_t a = rng.below(content + 1), b = rng.below(content + 1);
  if (a > b) std::swap(a, b);
  const auto from = [&](uint64_t i) { return text_.begin() + 1 + static_cast<std::ptrdiff_t>(i); };
  std::vector<int32_t> out;
  out.reserve(text_.size() + kFimTokens);
  out.push_back(text_.front());
  out.push_back(tokens_.fim_begin);
  out.insert(out.end(), from(0), from(a));
  out.push_back(tokens_.fim_hole);
  out.insert(out.end(), from(b), from(content));
  out.push_back(tokens_.fim_end);
  out.insert(out.end(), from(a), from(b));
  out.push_back(text_.back());
  text_.swap(out);
}

// One document after the other; a window that is full cuts.
void Batcher::fill_windows(const std::vector<uint32_t>& order) {
  const uint64_t seq_len = static_cast<uint64_t>(options_.seq_len);
  uint64_t free_rows = 0;
  for (const uint32_t document : order) {
    const uint64_t rows = rows_of(plan_.epoch, document);
    for (uint64_t begin = 0; begin < rows;) {
      if (free_rows == 0) {
        plan_.windows.push_back(plan_.pieces.size());
        free_rows = seq_len;
      }
      const uint64_t taken = std::min(free_rows, rows - begin);
      plan_.pieces.push_back({document, static_cast<uint32_t>(taken), begin});
      begin += taken;
      free_rows -= taken;
    }
  }
}

// Best fit: a piece goes to the open window that it leaves least room in; when none has room and no
// more may be open, the fullest is closed.
void Batcher::fit_windows(const std::vector<uint32_t>& order) {
  struct Open {
    uint64_t free_rows;
    std::vector<Piece> pieces;
  };
  const uint64_t seq_len = static_cast<uint64_t>(options_.seq_len);
  std::vector<Open> open;
  const auto close = [&](size_t i) {
    plan_.windows.push_back(plan_.pieces.size());
    plan_.pieces.insert(plan_.pieces.end(), open[i].pieces.begin(), open[i].pieces.end());
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
  };
  const auto best_for = [&](uint64_t rows) {
    size_t best = open.size();
    for (size_t i = 0; i < open.size(); ++i) {
      if (open[i].free_rows < rows) continue;
      if (best == open.size() || open[i].free_rows < open[best].free_rows) best = i;
    }
    return best;
  };
  for (const uint32_t document : order) {
    const uint64_t rows = rows_of(plan_.epoch, document);
    for (uint64_t begin = 0; begin < rows; begin += seq_len) {
      const uint64_t taken = std::min(seq_len, rows - begin);
      size_t i = best_for(taken);
      if (i == open.size()) {
        if (open.size() == kOpenWindows) {
          const auto fullest = std::min_element(
              open.begin(), open.end(),
              [](const Open& a, const Open& b) { return a.free_rows < b.free_rows; });
          close(static_cast<size_t>(fullest - open.begin()));
        }
        i = open.size();
        open.push_back({seq_len, {}});
      }
      open[i].pieces.push_back({document, static_cast<uint32_t>(taken), begin});
      open[i].free_rows -= taken;
      if (open[i].free_rows == 0) close(i);
    }
  }
  while (!open.empty()) close(0);
}

void Batcher::make_plan(uint64_t epoch) {
  if (plan_.epoch == epoch) return;
  plan_ = {epoch, {}, {}};
  std::vector<uint32_t> order(first_document_.back());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  Rng rng(static_cast<uint64_t>(options_.seed), "data.order", epoch);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  if (options_.whole_documents) {
    fit_windows(order);
  } else {
    fill_windows(order);
  }
  if (epoch_starts_.size() == epoch + 1) {
    epoch_starts_.push_back(epoch_starts_.back() + plan_.windows.size());
  }
  plan_.windows.push_back(plan_.pieces.size());
}

uint64_t Batcher::find_window(uint64_t window) {
  while (epoch_starts_.back() <= window) make_plan(epoch_starts_.size() - 1);
  const auto after = std::upper_bound(epoch_starts_.begin(), epoch_starts_.end(), window);
  const uint64_t epoch = static_cast<uint64_t>(after - epoch_starts_.begin()) - 1;
  make_plan(epoch);
  return window - epoch_starts_[epoch];
}

uint64_t Batcher::windows_in_epoch(uint64_t epoch) {
  while (epoch_starts_.size() < epoch + 2) make_plan(epoch_starts_.size() - 1);
  return epoch_starts_[epoch + 1] - epoch_starts_[epoch];
}

uint64_t Batcher::epoch_of(uint64_t step) {
  find_window(step * static_cast<uint64_t>(options_.batch_size));
  return plan_.epoch;
}

void Batcher::append_window(uint64_t window, Batch& batch) {
  const uint64_t end = batch.tokens.size() + static_cast<uint64_t>(options_.seq_len);
  const auto begin_sequence = [&] {
    batch.doc_bounds.push_back(static_cast<int32_t>(batch.tokens.size()));
  };
  for (uint64_t p = plan_.windows[window]; p < plan_.windows[window + 1]; ++p) {
    const Piece& piece = plan_.pieces[p];
    load_piece(piece);
    begin_sequence();
    for (uint32_t i = 0; i < piece.rows; ++i) {
      batch.tokens.push_back(text_[i]);
      batch.targets.push_back(text_[i + 1]);
      batch.pos.push_back(static_cast<int32_t>(i));
      batch.loss_mask.push_back(text_loss_[i + 1] != 0 ? 1.0f : 0.0f);
      batch.num_loss_tokens += text_loss_[i + 1];
    }
  }
  if (batch.tokens.size() < end) begin_sequence();
  for (int32_t pos = 0; batch.tokens.size() < end; ++pos) {
    batch.tokens.push_back(tokens_.pad);
    batch.targets.push_back(tokens_.pad);
    batch.pos.push_back(pos);
    batch.loss_mask.push_back(0.0f);
  }
}

Batch Batcher::batch(uint64_t step) {
  const uint64_t batch_size = static_cast<uint64_t>(options_.batch_size);
  const size_t rows = static_cast<size_t>(options_.batch_size * options_.seq_len);
  Batch batch;
  batch.tokens.reserve(rows);
  batch.targets.reserve(rows);
  batch.pos.reserve(rows);
  batch.loss_mask.reserve(rows);
  for (uint64_t i = 0; i < batch_size; ++i)
    append_window(find_window(step * batch_size + i), batch);
  batch.doc_bounds.push_back(static_cast<int32_t>(rows));
  return batch;
}

}  // namespace fathom
