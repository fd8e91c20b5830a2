// Finds pages that already hold the front of a sequence. A page is known by the chain of tokens up
// to its end (SGLang's radix tree at page granularity, kept as a hash chain).
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "fathom/infer/paged_cache.h"

namespace fathom {

// Holds one reference to every page it knows. One thread at a time.
class PrefixCache {
 public:
  explicit PrefixCache(PagedCache& pages) : pages_(pages) {}
  ~PrefixCache() { clear(); }
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The pages of the longest known front of `tokens`, full pages only; the caller gets a reference
  // to each.
  std::vector<int32_t> match(std::span<const int32_t> tokens);
  int64_t matching_pages(std::span<const int32_t> tokens) const;  // without taking any

  // Makes the full pages of `tokens` known. A page whose tokens are known already is replaced in
  // `pages` by the known one: equal tokens have equal keys, bit for bit.
  void insert(std::span<const int32_t> tokens, std::span<int32_t> pages);

  // Forgets the least recently used page that nobody else holds. False when there is none.
  bool evict_one();
  void clear();
  int64_t num_pages() const { return static_cast<int64_t>(nodes_.size()); }
  int64_t num_evictable() const;

 private:
  struct Node {
    uint64_t key;
    uint64_t parent;
    std::vector<int32_t> tokens;  // of this page, against collisions
    int32_t page;
  };
  // Most recently used first; a page is never more recent than the page before it in its chain.
  using Order = std::list<Node>;

  static uint64_t chain(uint64_t parent, std::span<const int32_t> tokens);
  // The node of exactly this page, or null.
  const Order::iterator* find(uint64_t parent, uint64_t key, std::span<const int32_t> tokens) const;
  std::vector<Order::iterator> walk(std::span<const int32_t> tokens) const;
  void touch(const std::vector<Order::iterator>& path);

  PagedCache& pages_;
  Order order_;
  std::unordered_map<uint64_t, Order::iterator> nodes_;
};

}  // namespace fathom
