#include "fathom/infer/prefix_cache.h"

#include <algorithm>
#include <string_view>

#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr uint64_t kRoot = 0;
constexpr auto kPage = static_cast<size_t>(kPageTokens);

}  // namespace

uint64_t PrefixCache::chain(uint64_t parent, std::span<const int32_t> tokens) {
  const auto* bytes = reinterpret_cast<const char*>(tokens.data());
  return hash_bytes(std::string_view(bytes, tokens.size_bytes()), parent + 1);
}

const PrefixCache::Order::iterator* PrefixCache::find(uint64_t parent, uint64_t key,
                                                      std::span<const int32_t> tokens) const {
  const auto it = nodes_.find(key);
  if (it == nodes_.end()) return nullptr;
  const Node& n = *it->second;
  return n.parent == parent && std::ranges::equal(n.tokens, tokens) ? &it->second : nullptr;
}

std::vector<PrefixCache::Order::iterator> PrefixCache::walk(std::span<const int32_t> tokens) const {
  std::vector<Order::iterator> path;
  uint64_t parent = kRoot;
  for (size_t at = 0; at + kPage <= tokens.size(); at += kPage) {
    const auto part = tokens.subspan(at, kPage);
    const uint64_t key = chain(parent, part);
    const Order::iterator* node = find(parent, key, part);
    if (!node) break;
    path.push_back(*node);
    parent = key;
  }
  return path;
}

void PrefixCache::touch(const std::vector<Order::iterator>& path) {
  for (auto it = path.rbegin(); it != path.rend(); ++it) order_.splice(order_.begin(), order_, *it);
}

std::vector<int32_t> PrefixCache::match(std::span<const int32_t> tokens) {
  const auto path = walk(tokens);
  touch(path);
  std::vector<int32_t> found;
  for (const auto& node : path) {
    pages_.retain(node->page);
    found.push_back(node->page);
  }
  return found;
}

int64_t PrefixCache::matching_pages(std::span<const int32_t> tokens) const {
  return static_cast<int64_t>(walk(tokens).size());
}

void PrefixCache::insert(std::span<const int32_t> tokens, std::span<int32_t> pages) {
  std::vector<Order::iterator> path;
  uint64_t parent = kRoot;
  for (size_t at = 0, i = 0; at + kPage <= tokens.size(); at += kPage, ++i) {
    FM_CHECK(i < pages.size(), "{} pages for {} tokens", pages.size(), tokens.size());
    const auto part = tokens.subspan(at, kPage);
    const uint64_t key = chain(parent, part);
    const Order::iterator* known = find(parent, key, part);
    if (known && (*known)->page != pages[i]) {
      pages_.retain((*known)->page);
      pages_.release(pages[i]);
      pages[i] = (*known)->page;
    }
    if (!known) {
      if (nodes_.contains(key)) break;  // another text has this hash; it keeps its place
      pages_.retain(pages[i]);
      order_.push_front({key, parent, {part.begin(), part.end()}, pages[i]});
      nodes_[key] = order_.begin();
    }
    path.push_back(nodes_[key]);
    parent = key;
  }
  touch(path);
}

bool PrefixCache::evict_one() {
  for (auto it = order_.end(); it != order_.begin();) {
    --it;
    if (pages_.num_refs(it->page) > 1) continue;
    pages_.release(it->page);
    nodes_.erase(it->key);
    order_.erase(it);
    return true;
  }
  return false;
}

void PrefixCache::clear() {
  for (const Node& n : order_) pages_.release(n.page);
  order_.clear();
  nodes_.clear();
}

int64_t PrefixCache::num_evictable() const {
  return std::ranges::count_if(order_, [&](const Node& n) { return pages_.num_refs(n.page) == 1; });
}

}  // namespace fathom
