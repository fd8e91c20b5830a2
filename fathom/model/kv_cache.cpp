#include "fathom/model/kv_cache.h"

#include <cstring>

namespace fathom {

KvCache::KvCache(Arena& arena, const ModelConfig& config, int64_t num_pages, DType dtype)
    : num_pages_(num_pages),
      num_layers_(config.num_layers()),
      latent_width_(config.kv_lora_rank + config.qk_rope_head_dim),
      index_width_(config.has_dsa() ? config.index_head_dim : 0),
      dtype_(dtype) {
  for (int64_t l = 0; l < num_layers_; ++l) {
    latent_.push_back(empty(arena, dtype, {num_pages * kPageTokens, latent_width_}));
    const bool indexed = config.has_dsa() && config.has_indexer(l);
    index_.push_back(indexed ? empty(arena, dtype, {num_pages * kPageTokens, index_width_})
                             : Tensor());
  }
}

std::byte* KvCache::page(Kind kind, int64_t layer, int64_t page_idx) const {
  FM_CHECK(page_idx >= 0 && page_idx < num_pages_, "page {} of {}", page_idx, num_pages_);
  const Tensor& t = (kind == Kind::kLatent ? latent_ : index_)[static_cast<size_t>(layer)];
  return static_cast<std::byte*>(t.view.at_element(page_idx * kPageTokens * width(kind)));
}

int64_t KvCache::bytes_per_token() const {
  int64_t numbers = 0;
  for (const Tensor& t : latent_) numbers += t.view.last();
  for (const Tensor& t : index_)
    if (t) numbers += t.view.last();
  return numbers * dtype_bytes(dtype_);
}

void KvCache::copy_page(int64_t from, int64_t to) {
  for (const Kind kind : {Kind::kLatent, Kind::kIndex}) {
    const auto size = static_cast<size_t>(kPageTokens * width(kind) * dtype_bytes(dtype_));
    for (int64_t l = 0; l < num_layers_; ++l) {
      if (kind == Kind::kIndex && !index_[static_cast<size_t>(l)]) continue;
      std::memcpy(page(kind, l, to), page(kind, l, from), size);
    }
  }
}

PageTable CachePages::append(KvCache::Kind kind, int64_t layer, const View& rows_TX,
                             const SeqRows& seqs) const {
  const int64_t width = cache->width(kind);
  FM_CHECK(rows_TX.last() == width, "rows of {}, the cache holds {}", rows_TX.last(), width);
  PageTable table{.page = {}, .first_page = first_page, .stride = width, .dtype = cache->dtype()};
  for (const int32_t p : page) table.page.push_back(cache->page(kind, layer, p));
  for (int64_t b = 0; b < seqs.num_seq(); ++b) {
    const auto bi = static_cast<size_t>(b);
    const int64_t rows = seqs.first_row[bi + 1] - seqs.first_row[bi];
    for (int64_t i = 0; i < rows;) {  // runs of rows that fall into one page
      const int64_t pos = seqs.first_pos[bi] + i;
      const int64_t run = std::min(rows - i, kPageTokens - pos % kPageTokens);
      const size_t slot = static_cast<size_t>(first_page[bi] + pos / kPageTokens);
      FM_CHECK(slot < page.size(), "sequence {} has no page for position {}", b, pos);
      void* base = cache->page(kind, layer, page[slot]);
      View to = make_view(base, cache->dtype(), {kPageTokens, width});
      convert(slice(rows_TX, 0, seqs.first_row[bi] + i, run), slice(to, 0, pos % kPageTokens, run));
      i += run;
    }
  }
  return table;
}

}  // namespace fathom
