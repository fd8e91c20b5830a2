// Batches of packed training sequences. A batch is `batch_size` windows of `seq_len` rows; a window
// holds pieces of documents, each an attention sequence of its own with positions from 0. Row i
// reads one token and predicts the next token of its document, so a document of n tokens fills n -
// 1 rows.
//
// batch(step) is a pure function of the shards, the options and the step: a resumed run asks for
// its next step and needs no other state. Every epoch has an order, cuts and fill-in-the-middle
// choices of its own, named by its index.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/train/data/shard.h"

namespace fathom {

struct BatchOptions {
  int64_t batch_size = 8;
  int64_t seq_len = 256;
  int64_t seed = 1;
  bool whole_documents = false;
  double fim_rate = 0;

  void fields(OptionSet& o) {
    o.add("batch_size", &batch_size, "windows in a batch");
    o.add("seq_len", &seq_len, "rows of a window");
    o.add("seed", &seed, "names the order of the documents");
    o.add("whole_documents", &whole_documents,
          "cut only documents longer than a window, pad the rest; else windows are filled and cut");
    o.add("fim_rate", &fim_rate, "share of documents in fill-in-the-middle form (V3: 0.1)");
  }
};

// Ids that the batcher writes itself.
struct BatchTokens {
  int32_t pad = 0;  // rows without a document; they carry no loss
  int32_t fim_begin = -1, fim_hole = -1, fim_end = -1;  // needed when fim_rate > 0
};

struct Batch {
  std::vector<int32_t> tokens, targets;  // [rows], rows = batch_size * seq_len
  std::vector<int32_t> pos;              // [rows], from 0 in each sequence
  std::vector<int32_t> doc_bounds;       // first row of each sequence, ascending from 0; then rows
  std::vector<float> loss_mask;          // [rows], 1 where the target counts, else 0
  int64_t num_loss_tokens = 0;           // sum of loss_mask
};

class Batcher {
 public:
  // Throws Error when the shards differ in vocabulary or tokenizer, hold no trainable token, or an
  // option is out of range. Fill-in-the-middle leaves shards with a loss mask (chat records) as
  // they are.
  Batcher(std::vector<std::shared_ptr<const Shard>> shards, BatchOptions options,
          BatchTokens tokens = {});

  // One thread at a time. Steps in order are fast; a jump over epochs plans each of them once.
  Batch batch(uint64_t step);

  uint64_t windows_in_epoch(uint64_t epoch);
  uint64_t epoch_of(uint64_t step);  // of the step's first window

 private:
  // Rows [begin, begin + rows) of a document in the form it takes in this epoch.
  struct Piece {
    uint32_t document, rows;
    uint64_t begin;
  };
  struct Plan {
    uint64_t epoch = ~uint64_t{0};
    std::vector<Piece> pieces;
    std::vector<uint64_t> windows;  // first piece of each window, then pieces.size()
  };
  struct Place {
    const Shard* shard;
    uint64_t begin, end;  // tokens in the shard
  };

  Place place(uint64_t document) const;
  bool in_fim_form(uint64_t epoch, uint64_t document, uint64_t size, bool masked) const;
  uint64_t rows_of(uint64_t epoch, uint64_t document) const;
  void load_piece(const Piece& piece);  // its tokens and the last target into text_, text_loss_
  void to_fim_form(uint64_t document);  // the whole document in text_

  void fill_windows(const std::vector<uint32_t>& order);
  void fit_windows(const std::vector<uint32_t>& order);
  void make_plan(uint64_t epoch);
  uint64_t find_window(uint64_t window);  // makes the plan of its epoch; the window's index in it
  void append_window(uint64_t window, Batch& batch);

  std::vector<std::shared_ptr<const Shard>> shards_;
  std::vector<uint64_t> first_document_;  // per shard, then their number
  BatchOptions options_;
  BatchTokens tokens_;
  Plan plan_;
  std::vector<uint64_t> epoch_starts_ = {
      0};  // first window of the epochs known so far, and the next one's
  std::vector<int32_t> text_;
  std::vector<uint8_t> text_loss_;
};

}  // namespace fathom
