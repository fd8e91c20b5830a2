#include "fathom/model/kv_cache.h"

#include <cstring>

namespace fathom {

KvCache::KvCache(Arena& arena, const ModelConfig& config, int64_t num_pages, CacheForm form)
    : num_pages_(num_pages),
      num_layers_(config.num_layers()),
      latent_width_(config.kv_lora_rank + config.qk_rope_head_dim),
      index_width_(config.has_dsa() ? config.index_head_dim : 0),
      latent_bytes_(latent_bytes(config, form)),
      index_bytes_(index_bytes(config, form)),
      coded_latent_(config.kv_lora_rank),
      form_(form) {
  for (int64_t l = 0; l < num_layers_; ++l) {
    latent_.push_back(empty(arena, DType::kU8, {num_pages * kPageTokens, latent_bytes_}));
    const bool indexed = config.has_dsa() && config.has_indexer(l);
    index_.push_back(indexed ? empty(arena, DType::kU8, {num_pages * kPageTokens, index_bytes_})
                             : Tensor());
  }
}

std::byte* KvCache::page(Kind kind, int64_t layer, int64_t page_idx) const {
  FM_CHECK(page_idx >= 0 && page_idx < num_pages_, "page {} of {}", page_idx, num_pages_);
  const Tensor& t = (kind == Kind::kLatent ? latent_ : index_)[static_cast<size_t>(layer)];
  return static_cast<std::byte*>(t.view.at_element(page_idx * kPageTokens * row_bytes(kind)));
}

std::vector<const void*> KvCache::addresses(Kind kind, int64_t layer,
                                            std::span<const int32_t> pages) const {
  const std::byte* first = page(kind, layer, 0);
  const int64_t bytes = kPageTokens * row_bytes(kind);
  std::vector<const void*> out(pages.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    FM_CHECK(pages[i] >= 0 && pages[i] < num_pages_, "page {} of {}", pages[i], num_pages_);
    out[i] = first + pages[i] * bytes;
  }
  return out;
}

int64_t KvCache::bytes_per_token() const {
  int64_t bytes = 0;
  for (const auto* layers : {&latent_, &index_})
    for (const Tensor& t : *layers)
      if (t) bytes += t.view.last();
  return bytes;
}

PageTable KvCache::table(Kind kind) const {
  const int64_t coded = kind == Kind::kLatent ? coded_latent_ : index_width_;
  if (form_ == CacheForm::kFp8)
    return {.stride = row_bytes(kind), .dtype = DType::kE4M3, .coded = coded};
  if (form_ == CacheForm::kInt8Latent || (form_ == CacheForm::kInt8 && kind == Kind::kIndex))
    return {.stride = row_bytes(kind), .dtype = DType::kI8, .coded = coded};
  return {.stride = width(kind), .dtype = form_ == CacheForm::kF32 ? DType::kF32 : DType::kBF16};
}

void KvCache::put(const Ctx& ctx, Kind kind, std::byte* page, int64_t first,
                  const View& rows_MX) const {
  const int64_t M = rows_MX.dim[0], bytes = row_bytes(kind);
  std::byte* to = page + first * bytes;
  const PageTable form = table(kind);
  if (form.dtype == DType::kI8 && kind == Kind::kLatent)
    return ctx.kernels.latent_code(ctx.exec(), {.x = rows_MX, .coded = form.coded, .rows = to});
  if (form.dtype == DType::kI8)
    return ctx.kernels.index_code(ctx.exec(), {.x = rows_MX, .page = page, .first = first});
  if (form_ != CacheForm::kFp8)
    return convert(rows_MX, make_view(to, form.dtype, {M, form.stride}));
  const auto column = [&](int64_t at, DType dtype, int64_t columns) {
    View v = make_view(to + at, dtype, {M, columns});
    v.stride[0] = bytes / dtype_bytes(dtype);
    return v;
  };
  const int64_t rest = width(kind) - form.coded;
  ctx.kernels.act_quant(ctx.exec(), {.x = slice(rows_MX, 1, 0, form.coded),
                                     .format = ScaleFormat::kUe8m0,
                                     .codes = column(0, DType::kE4M3, form.coded),
                                     .scales = column(coded_scales_at(form.coded), DType::kF32,
                                                      (form.coded + 127) / 128)});
  if (rest > 0)
    convert(slice(rows_MX, 1, form.coded, rest),
            column(coded_rest_at(form.coded), DType::kBF16, rest));
}

std::vector<std::span<std::byte>> KvCache::page_parts(int64_t page_idx, int64_t num_layers) const {
  std::vector<std::span<std::byte>> parts;
  for (const Kind kind : {Kind::kLatent, Kind::kIndex}) {
    const auto size = static_cast<size_t>(kPageTokens * row_bytes(kind));
    for (int64_t l = 0; l < num_layers; ++l)
      if (kind == Kind::kLatent || index_[static_cast<size_t>(l)])
        parts.push_back({page(kind, l, page_idx), size});
  }
  return parts;
}

void KvCache::copy_page(int64_t from, int64_t to) {
  const auto source = page_parts(from, num_layers_), target = page_parts(to, num_layers_);
  for (size_t i = 0; i < source.size(); ++i)
    std::memcpy(target[i].data(), source[i].data(), source[i].size());
}

PageTable CachePages::append(const Ctx& ctx, KvCache::Kind kind, int64_t layer, const View& rows_TX,
                             const SeqRows& seqs) const {
  const int64_t width = cache->width(kind);
  FM_CHECK(rows_TX.last() == width, "rows of {}, the cache holds {}", rows_TX.last(), width);
  PageTable table = cache->table(kind);
  table.first_page = first_page;
  table.page = cache->addresses(kind, layer, page);
  for (int64_t b = 0; b < seqs.num_seq(); ++b) {
    const auto bi = static_cast<size_t>(b);
    const int64_t rows = seqs.first_row[bi + 1] - seqs.first_row[bi];
    for (int64_t i = 0; i < rows;) {  // runs of rows that fall into one page
      const int64_t pos = seqs.first_pos[bi] + i;
      const int64_t run = std::min(rows - i, kPageTokens - pos % kPageTokens);
      const size_t slot = static_cast<size_t>(first_page[bi] + pos / kPageTokens);
      FM_CHECK(slot < page.size(), "sequence {} has no page for position {}", b, pos);
      cache->put(ctx, kind, cache->page(kind, layer, page[slot]), pos % kPageTokens,
                 slice(rows_TX, 0, seqs.first_row[bi] + i, run));
      i += run;
    }
  }
  return table;
}

}  // namespace fathom
