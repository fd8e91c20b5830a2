// Finds pages that already hold the front of a sequence: a radix tree over token ids with a page of
// 64 tokens for each edge (as SGLang's with this page size). A page that is not full yet is a leaf
// with fewer tokens. With a store behind it, full pages are on disk too.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fathom/infer/paged_cache.h"
#include "fathom/infer/prefix_store.h"

namespace fathom {

// Holds one reference to every page it knows. One thread at a time.
class PrefixCache {
 public:
  // Pages on disk have the rows of the first `stored_layers` layers. The cache works without a
  // store.
  PrefixCache(PagedCache& pages, std::unique_ptr<PrefixStore> store, int64_t stored_layers);
  explicit PrefixCache(PagedCache& pages) : PrefixCache(pages, nullptr, 0) {}
  ~PrefixCache() { clear(); }
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The pages of the longest known front of `tokens`, full pages only; the caller gets a reference
  // to each.
  std::vector<int32_t> match(std::span<const int32_t> tokens);
  int64_t matching_pages(std::span<const int32_t> tokens) const;  // without taking any
  // Continues a match with pages from the store, as long as there are free pages to read them into.
  void restore(std::span<const int32_t> tokens, std::vector<int32_t>& pages);

  // Of the known pages that follow the full pages of `tokens`, the one with the most rows in
  // common with the rest of it. Whoever wants the rows copies them: more rows may follow in the
  // page, of this or of another text. Nothing when there are none.
  struct Tail {
    int32_t page = -1;
    int64_t num_rows = 0;
  };
  std::optional<Tail> tail(std::span<const int32_t> tokens) const;

  // Makes the pages of `tokens` known, the last one perhaps with fewer than 64 rows. A full page
  // whose tokens are known already is replaced in `pages` by the known one: equal tokens have equal
  // keys, bit for bit. Known rows must not change as long as their owner has the page.
  void insert(std::span<const int32_t> tokens, std::span<int32_t> pages);

  // A free page; if there is none, the least recently used one that nobody else holds is forgotten
  // for it. Nothing when all are held.
  std::optional<int32_t> take_page();
  bool evict_one();  // false when there is none
  void clear();      // the pages in memory; those of the store stay
  // The weights have changed: nothing known is true any more.
  void clear_for_good();

  int64_t num_pages() const { return std::ssize(order_); }
  int64_t num_evictable() const;
  PrefixStore* store() { return store_.get(); }

 private:
  struct Less {
    using is_transparent = void;
    using Tokens = std::span<const int32_t>;
    bool operator()(const Tokens& a, const Tokens& b) const;
  };
  struct Node {
    std::map<std::vector<int32_t>, std::unique_ptr<Node>, Less> children;
    Node* parent = nullptr;
    std::span<const int32_t> tokens;  // of this page; the key in parent->children
    int32_t page = -1;
    PageKey key;  // of full pages when there is a store
    std::list<Node*>::iterator place;
  };
  struct Found {
    Node* node = nullptr;
    int64_t num_rows = 0;
  };

  static Found best_child(const Node& node, std::span<const int32_t> tokens);
  std::vector<Node*> walk(std::span<const int32_t> tokens) const;
  Node& add(Node& parent, std::span<const int32_t> tokens, int32_t page, PageKey key);
  void remove(Node& node);
  void drop_shorter(Node& parent, std::span<const int32_t> tokens);
  void insert_tail(Node& parent, std::span<const int32_t> tokens, int32_t page);
  void touch(const std::vector<Node*>& path);
  PageKey key_below(const Node& parent, std::span<const int32_t> tokens) const;
  PageId id_of(const Node& node) const;

  PagedCache& pages_;
  std::unique_ptr<PrefixStore> store_;
  int64_t stored_layers_;
  Node root_;
  // Most recently used first; a page is never more recent than the page before it in its text.
  std::list<Node*> order_;
};

}  // namespace fathom
