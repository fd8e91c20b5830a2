// The memory of attention while serving: per layer, pages of 64 tokens with the latent rows (C + R
// numbers a token) and the indexer's keys (I numbers). Who owns which page is decided by infer/;
// this is only the storage.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "fathom/model/config.h"
#include "fathom/model/model_costs.h"
#include "fathom/ops/attention.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

class KvCache {
 public:
  // Takes its memory now: num_pages pages for every layer, multi-token prediction layers included.
  // kF32 keeps the bits of the keys; kBF16 rounds them; kFp8 codes latents and index keys with
  // powers of two as scales, which keeps what Numerics::kFp8Cache makes of them, and rounds the
  // rotary key to bf16; kInt8 rounds latents to bf16 and codes index keys;
  // kInt8Latent codes both and rounds the rotary key to bf16.
  KvCache(Arena& arena, const ModelConfig& config, int64_t num_pages, CacheForm form);

  enum class Kind : uint8_t { kLatent, kIndex };
  // Address of a page: one row per token, but index keys in integer codes (IndexCode of kernels.h).
  std::byte* page(Kind kind, int64_t layer, int64_t page_idx) const;
  // The same of many pages.
  std::vector<const void*> addresses(Kind kind, int64_t layer,
                                     std::span<const int32_t> pages) const;
  int64_t width(Kind kind) const { return kind == Kind::kLatent ? latent_width_ : index_width_; }
  int64_t num_pages() const { return num_pages_; }
  int64_t bytes_per_token() const;
  CacheForm form() const { return form_; }
  // An empty table of pages with the rows of this cache.
  PageTable table(Kind kind) const;
  // Stores rows [M, width] f32 in the page, from row `first` on.
  void put(const Ctx& ctx, Kind kind, std::byte* page, int64_t first, const View& rows_MX) const;
  // All memory of a page in the first `num_layers` layers, in a fixed order.
  std::vector<std::span<std::byte>> page_parts(int64_t page_idx, int64_t num_layers) const;
  // Copies every layer's rows of one page to another (copy on write of a shared prefix).
  void copy_page(int64_t from, int64_t to);

 private:
  int64_t row_bytes(Kind kind) const {
    return kind == Kind::kLatent ? latent_bytes_ : index_bytes_;
  }

  int64_t num_pages_, num_layers_, latent_width_, index_width_;
  int64_t latent_bytes_, index_bytes_, coded_latent_;  // of a row; its numbers in codes
  CacheForm form_;
  std::vector<Tensor> latent_, index_;  // per layer u8 [num_pages * 64, bytes of a row]
};

// The pages that a step's sequences use: sequence b has pages page[first_page[b]] .. in order of
// position.
struct CachePages {
  KvCache* cache = nullptr;
  std::vector<int32_t> page;
  std::vector<int32_t> first_page;  // [num_seq]
  explicit operator bool() const { return cache != nullptr; }

  // Writes the step's rows (converted to the cache's form) at their positions, then says where all
  // keys are.
  PageTable append(const Ctx& ctx, KvCache::Kind kind, int64_t layer, const View& rows_TX,
                   const SeqRows& seqs) const;
};

}  // namespace fathom
