#include "fathom/infer/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace fathom {
namespace {

constexpr auto kPage = static_cast<size_t>(kPageTokens);

int64_t common_rows(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

// Files take a system call each: only for texts that run, not for those that wait.
void touch_stored(PrefixStore* store, const auto& path) {
  if (!store) return;
  std::vector<PageKey> chain;
  for (const auto* node : path) chain.push_back(node->key);
  store->touch(chain);
}

}  // namespace

bool PrefixCache::Less::operator()(const Tokens& a, const Tokens& b) const {
  return std::ranges::lexicographical_compare(a, b);
}

PrefixCache::PrefixCache(PagedCache& pages, std::unique_ptr<PrefixStore> store,
                         int64_t stored_layers)
    : pages_(pages), store_(std::move(store)), stored_layers_(stored_layers) {
  if (store_) root_.key = store_->root();
}

// In the order of the map the longest common front is at a neighbour of where `tokens` would be.
PrefixCache::Found PrefixCache::best_child(const Node& node, std::span<const int32_t> tokens) {
  const auto part = tokens.first(std::min(tokens.size(), kPage));
  Found best;
  const auto look = [&](auto it) {
    const int64_t rows = common_rows(it->second->tokens, part);
    if (rows > best.num_rows) best = {it->second.get(), rows};
  };
  const auto at = node.children.lower_bound(part);
  if (at != node.children.end()) look(at);
  if (at != node.children.begin()) look(std::prev(at));
  return best;
}

std::vector<PrefixCache::Node*> PrefixCache::walk(std::span<const int32_t> tokens) const {
  std::vector<Node*> path;
  const Node* node = &root_;
  for (; tokens.size() >= kPage; tokens = tokens.subspan(kPage)) {
    const Found next = best_child(*node, tokens);
    if (next.num_rows < kPageTokens) break;
    path.push_back(next.node);
    node = next.node;
  }
  return path;
}

void PrefixCache::touch(const std::vector<Node*>& path) {
  for (auto it = path.rbegin(); it != path.rend(); ++it)
    order_.splice(order_.begin(), order_, (*it)->place);
}

std::vector<int32_t> PrefixCache::match(std::span<const int32_t> tokens) {
  const std::vector<Node*> path = walk(tokens);
  touch(path);
  std::vector<int32_t> found;
  for (const Node* node : path) {
    pages_.retain(node->page);
    found.push_back(node->page);
  }
  return found;
}

int64_t PrefixCache::matching_pages(std::span<const int32_t> tokens) const {
  return std::ssize(walk(tokens));
}

std::optional<PrefixCache::Tail> PrefixCache::tail(std::span<const int32_t> tokens) const {
  const std::vector<Node*> path = walk(tokens);
  const Found next =
      best_child(path.empty() ? root_ : *path.back(), tokens.subspan(path.size() * kPage));
  if (!next.node) return std::nullopt;
  return Tail{next.node->page, next.num_rows};
}

PageKey PrefixCache::key_below(const Node& parent, std::span<const int32_t> tokens) const {
  return store_ && tokens.size() == kPage ? page_key(parent.key, tokens) : PageKey();
}

PageId PrefixCache::id_of(const Node& node) const {
  return {store_->root(), node.parent->key, node.key, node.tokens};
}

PrefixCache::Node& PrefixCache::add(Node& parent, std::span<const int32_t> tokens, int32_t page,
                                    PageKey key) {
  auto node = std::make_unique<Node>();
  Node& n = *node;
  const auto [at, fresh] =
      parent.children.emplace(std::vector(tokens.begin(), tokens.end()), std::move(node));
  FM_CHECK(fresh, "a page of {} tokens is known already", tokens.size());
  n.parent = &parent;
  n.tokens = at->first;
  n.page = page;
  n.key = std::move(key);
  n.place = order_.insert(order_.begin(), &n);
  pages_.retain(page);
  return n;
}

void PrefixCache::remove(Node& node) {
  FM_CHECK(node.children.empty(), "a page with {} pages behind it", node.children.size());
  pages_.release(node.page);
  order_.erase(node.place);
  auto& siblings = node.parent->children;
  siblings.erase(siblings.find(node.tokens));
}

// Leaves that `tokens` continues have no use beside it.
void PrefixCache::drop_shorter(Node& parent, std::span<const int32_t> tokens) {
  for (;;) {
    const auto at = parent.children.lower_bound(tokens);
    if (at == parent.children.begin()) return;
    Node& before = *std::prev(at)->second;
    if (common_rows(before.tokens, tokens) < std::ssize(before.tokens)) return;
    remove(before);
  }
}

void PrefixCache::insert_tail(Node& parent, std::span<const int32_t> tokens, int32_t page) {
  if (best_child(parent, tokens).num_rows == std::ssize(tokens)) return;
  drop_shorter(parent, tokens);
  add(parent, tokens, page, {});
}

void PrefixCache::insert(std::span<const int32_t> tokens, std::span<int32_t> pages) {
  std::vector<Node*> path;
  Node* node = &root_;
  for (size_t i = 0; !tokens.empty(); ++i) {
    FM_CHECK(i < pages.size(), "{} pages, and {} tokens more", pages.size(), tokens.size());
    const auto part = tokens.first(std::min(tokens.size(), kPage));
    tokens = tokens.subspan(part.size());
    if (part.size() < kPage) {
      insert_tail(*node, part, pages[i]);
      break;
    }
    const Found known = best_child(*node, part);
    if (known.num_rows == kPageTokens) {
      if (known.node->page != pages[i]) {
        pages_.retain(known.node->page);
        pages_.release(pages[i]);
        pages[i] = known.node->page;
      }
      node = known.node;
    } else {
      drop_shorter(*node, part);
      node = &add(*node, part, pages[i], key_below(*node, part));
      if (store_) store_->write(id_of(*node), pages_.parts(node->page, stored_layers_));
    }
    path.push_back(node);
  }
  touch(path);
  touch_stored(store_.get(), path);
}

void PrefixCache::restore(std::span<const int32_t> tokens, std::vector<int32_t>& pages) {
  if (!store_) return;
  std::vector<Node*> path = walk(tokens);
  if (path.size() != pages.size()) return;  // what is in memory has changed since the match
  for (size_t at = path.size() * kPage; at + kPage <= tokens.size(); at += kPage) {
    Node& parent = path.empty() ? root_ : *path.back();
    const auto part = tokens.subspan(at, kPage);
    PageKey key = key_below(parent, part);
    if (!store_->contains(key)) break;
    const std::optional<int32_t> page = take_page();
    if (!page) break;
    const PageId id{store_->root(), parent.key, key, part};
    if (!store_->read(id, pages_.parts(*page, stored_layers_))) {
      pages_.release(*page);
      break;
    }
    drop_shorter(parent, part);
    path.push_back(&add(parent, part, *page, std::move(key)));
    pages.push_back(*page);  // the reference of take_page is the caller's
  }
  touch(path);
  touch_stored(store_.get(), path);
}

std::optional<int32_t> PrefixCache::take_page() {
  std::optional<int32_t> page = pages_.allocate();
  if (!page && evict_one()) page = pages_.allocate();
  return page;
}

bool PrefixCache::evict_one() {
  for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
    if (pages_.num_refs((*it)->page) > 1 || !(*it)->children.empty()) continue;
    remove(**it);
    return true;
  }
  return false;
}

void PrefixCache::clear() {
  while (!order_.empty()) remove(*order_.back());
}

void PrefixCache::clear_for_good() {
  clear();
  store_.reset();
}

int64_t PrefixCache::num_evictable() const {
  return std::ranges::count_if(order_,
                               [&](const Node* n) { return pages_.num_refs(n->page) == 1; });
}

}  // namespace fathom
