#include "fathom/infer/paged_cache.h"

#include <algorithm>

#include "fathom/base/rng.h"

namespace fathom {

std::vector<int64_t> moe_layers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < config.num_hidden_layers; ++l)
    if (config.is_moe_layer(l)) layers.push_back(l);
  return layers;
}

std::vector<int64_t> indexer_layers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  if (!config.has_dsa()) return layers;
  for (int64_t l = 0; l < config.num_hidden_layers; ++l)
    if (config.has_indexer(l)) layers.push_back(l);
  return layers;
}

uint32_t selection_fingerprint(std::span<const int32_t> sel_K) {
  uint64_t sum = 0;
  for (const int32_t s : sel_K)
    if (s >= 0) sum = hash_mix(sum, static_cast<uint64_t>(s));
  return static_cast<uint32_t>(sum ^ (sum >> 32));
}

PagedCache::PagedCache(Arena& arena, const ModelConfig& config, int64_t num_pages,
                       bool record_routing, CacheForm form)
    : storage_(arena, config, num_pages, form), refs_(static_cast<size_t>(num_pages), 0) {
  for (int64_t p = num_pages - 1; p >= 0; --p) free_.push_back(static_cast<int32_t>(p));
  if (!record_routing) return;
  routing_width_ = static_cast<int64_t>(moe_layers(config).size()) * config.num_experts_per_tok;
  routing_.resize(static_cast<size_t>(num_pages * kPageTokens * routing_width_));
  selection_width_ = std::ssize(indexer_layers(config));
  selection_.resize(static_cast<size_t>(num_pages * kPageTokens * selection_width_));
}

std::optional<int32_t> PagedCache::allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t page = free_.back();
  free_.pop_back();
  refs_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagedCache::retain(int32_t page) {
  FM_CHECK(num_refs(page) > 0, "page {} is free", page);
  ++refs_[static_cast<size_t>(page)];
}

void PagedCache::release(int32_t page) {
  FM_CHECK(num_refs(page) > 0, "page {} is free", page);
  if (--refs_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

void PagedCache::copy_page(int32_t from, int32_t to) {
  storage_.copy_page(from, to);
  const auto copy_record = [&](auto& record, int64_t width) {
    const int64_t size = kPageTokens * width;
    std::copy_n(record.begin() + from * size, size, record.begin() + to * size);
  };
  copy_record(routing_, routing_width_);
  copy_record(selection_, selection_width_);
}

std::vector<std::span<std::byte>> PagedCache::parts(int32_t page, int64_t num_layers) {
  std::vector<std::span<std::byte>> parts = storage_.page_parts(page, num_layers);
  const auto add_record = [&](auto& record, int64_t width) {
    const auto size = static_cast<size_t>(kPageTokens * width);
    if (size == 0) return;
    parts.push_back(
        std::as_writable_bytes(std::span(record).subspan(static_cast<size_t>(page) * size, size)));
  };
  add_record(routing_, routing_width_);
  add_record(selection_, selection_width_);
  return parts;
}

std::span<uint16_t> PagedCache::routing(int32_t page, int64_t row) {
  const int64_t at = (page * kPageTokens + row) * routing_width_;
  return std::span(routing_).subspan(static_cast<size_t>(at), static_cast<size_t>(routing_width_));
}

std::span<uint32_t> PagedCache::selection(int32_t page, int64_t row) {
  const int64_t at = (page * kPageTokens + row) * selection_width_;
  return std::span(selection_)
      .subspan(static_cast<size_t>(at), static_cast<size_t>(selection_width_));
}

}  // namespace fathom
