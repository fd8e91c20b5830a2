// Who owns which page of the key cache: reference counts, a free list, copy on write. Beside the
// keys a page can remember which experts its tokens were routed to and which keys they selected,
// so that a shared prefix brings its record along.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fathom/model/kv_cache.h"

namespace fathom {

// One thread at a time.
class PagedCache {
 public:
  // kF32: a key read back has the bits that the training forward sees. `record_routing`
  // stores the experts of every token and mixture-of-experts layer of the main model, and a number
  // for what each indexer selected.
  PagedCache(Arena& arena, const ModelConfig& config, int64_t num_pages, bool record_routing,
             CacheForm form = CacheForm::kF32);

  std::optional<int32_t> allocate();  // one reference; nothing when all pages are taken
  void retain(int32_t page);
  void release(int32_t page);  // the last reference frees the page
  int32_t num_refs(int32_t page) const { return refs_[static_cast<size_t>(page)]; }
  // Rows and records of one page into another.
  void copy_page(int32_t from, int32_t to);
  // All memory of a page, records included, to store it elsewhere; of the main model's layers, or
  // of all. Every part is a multiple of 8 bytes.
  std::vector<std::span<std::byte>> parts(int32_t page, int64_t num_layers);

  int64_t num_pages() const { return storage_.num_pages(); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  KvCache& storage() { return storage_; }

  // Experts of one token: [mixture-of-experts layer][A]; empty when nothing is recorded.
  std::span<uint16_t> routing(int32_t page, int64_t row);
  // Fingerprints of one token: [layer with an indexer]; empty when nothing is recorded.
  std::span<uint32_t> selection(int32_t page, int64_t row);
  bool records_routing() const { return routing_width_ > 0 || selection_width_ > 0; }

 private:
  KvCache storage_;
  std::vector<int32_t> refs_;
  std::vector<int32_t> free_;
  int64_t routing_width_ = 0;
  std::vector<uint16_t> routing_;  // [num_pages * 64, routing_width]
  int64_t selection_width_ = 0;
  std::vector<uint32_t> selection_;  // [num_pages * 64, selection_width]
};

// Layers of the main model that route.
std::vector<int64_t> moe_layers(const ModelConfig& config);
// Layers of the main model that own an indexer.
std::vector<int64_t> indexer_layers(const ModelConfig& config);

// A number for the K positions that a row selected, as index_select gives them.
uint32_t selection_fingerprint(std::span<const int32_t> sel_K);

}  // namespace fathom
