// Page accounting and prefix lookup.
#include <doctest/doctest.h>

#include <map>

#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

using Ids = std::vector<int32_t>;

struct Fixture {
  testing::Machine m;
  ModelConfig config = testing::family_config("v32-nano");
  PagedCache pages;
  explicit Fixture(int64_t num_pages, bool routing = false)
      : pages(m.arena, config, num_pages, routing) {}

  float* row(int32_t page) {
    return reinterpret_cast<float*>(pages.storage().page(KvCache::Kind::kLatent, 1, page));
  }
};

Ids counting(int32_t n, int32_t from = 0) {
  Ids out;
  for (int32_t i = 0; i < n; ++i) out.push_back(from + i);
  return out;
}

TEST_CASE("pages are counted and come back") {
  Fixture f(3);
  const int32_t a = *f.pages.allocate(), b = *f.pages.allocate(), c = *f.pages.allocate();
  CHECK(a != b);
  CHECK(b != c);
  CHECK(!f.pages.allocate());
  f.pages.retain(b);
  f.pages.release(b);
  CHECK(f.pages.num_free() == 0);
  f.pages.release(b);
  CHECK(f.pages.num_free() == 1);
  CHECK_THROWS_AS(f.pages.release(b), InternalError);
  CHECK(*f.pages.allocate() == b);
}

TEST_CASE("a copied page has rows and records of its own") {
  Fixture f(2, true);
  const int32_t a = *f.pages.allocate();
  const int32_t b = *f.pages.allocate();
  f.row(a)[3] = 1.5f;
  f.pages.routing(a, 9)[0] = 77;
  f.pages.selection(a, 9)[0] = 99;
  f.pages.copy_page(a, b);
  CHECK(f.row(b)[3] == 1.5f);
  CHECK(f.pages.routing(b, 9)[0] == 77);
  CHECK(f.pages.selection(b, 9)[0] == 99);
  f.row(b)[3] = 2;
  f.pages.routing(b, 9)[0] = 1;
  CHECK(f.row(a)[3] == 1.5f);
  CHECK(f.pages.routing(a, 9)[0] == 77);
}

Ids take_pages(PagedCache& pages, int n) {
  Ids out;
  for (int i = 0; i < n; ++i) out.push_back(*pages.allocate());
  return out;
}

void release_all(PagedCache& pages, const Ids& ids) {
  for (const int32_t p : ids) pages.release(p);
}

TEST_CASE("prefixes are found by full pages only") {
  Fixture f(8);
  PrefixCache prefixes(f.pages);
  Ids own = take_pages(f.pages, 2);
  const Ids text = counting(150);
  prefixes.insert(std::span(text).first(128), own);
  CHECK(prefixes.num_pages() == 2);
  CHECK(prefixes.matching_pages(text) == 2);
  CHECK(prefixes.matching_pages(std::span(text).first(127)) == 1);
  CHECK(prefixes.matching_pages(std::span(text).first(63)) == 0);
  Ids other = text;
  other[64] = 9999;
  CHECK(prefixes.matching_pages(other) == 1);
  other[0] = 9999;
  CHECK(prefixes.matching_pages(other) == 0);
  // The second page alone is no prefix.
  CHECK(prefixes.matching_pages(std::span(text).subspan(64)) == 0);
  const Ids found = prefixes.match(text);
  CHECK(found == own);
  CHECK(f.pages.num_refs(own[0]) == 3);
  release_all(f.pages, found);
  release_all(f.pages, own);
  prefixes.clear();
  CHECK(f.pages.num_free() == 8);
}

TEST_CASE("a page that is not full lends the rows that are equal") {
  Fixture f(6);
  PrefixCache prefixes(f.pages);
  Ids own = take_pages(f.pages, 2);
  const Ids text = counting(100);
  prefixes.insert(text, own);
  CHECK(prefixes.num_pages() == 2);
  CHECK(prefixes.matching_pages(text) == 1);
  const auto rows = [&](Ids t) {
    const auto tail = prefixes.tail(t);
    return tail ? std::pair(tail->page, tail->num_rows) : std::pair(-1, int64_t{0});
  };
  CHECK(rows(text) == std::pair(own[1], int64_t{36}));
  CHECK(rows(counting(200)) == std::pair(own[1], int64_t{36}));
  CHECK(rows(counting(70)) == std::pair(own[1], int64_t{6}));
  Ids other = text;
  other[80] = 7;
  CHECK(rows(other) == std::pair(own[1], int64_t{16}));
  other[64] = 7;
  CHECK(rows(other).second == 0);
  CHECK(rows(counting(10)) == std::pair(own[0], int64_t{10}));  // of a full page too
  // More rows of the same text take the place of fewer, fewer change nothing.
  prefixes.insert(std::span(text).first(90), own);
  CHECK(prefixes.num_pages() == 2);
  CHECK(rows(text).second == 36);
  prefixes.insert(counting(128), own);
  CHECK(prefixes.num_pages() == 2);
  CHECK(prefixes.matching_pages(counting(128)) == 2);
  CHECK(f.pages.num_refs(own[1]) == 2);
  // Two texts that part inside a page.
  Ids fork = take_pages(f.pages, 1);
  Ids both = {own[0], fork[0]};
  other = counting(110);
  other[80] = 7;
  prefixes.insert(other, both);
  CHECK(prefixes.num_pages() == 3);
  CHECK(rows(other) == std::pair(fork[0], int64_t{46}));
  CHECK(rows(counting(127)) == std::pair(own[1], int64_t{63}));
  release_all(f.pages, own);
  release_all(f.pages, fork);
  CHECK(prefixes.num_evictable() == 3);
  for (int left = 2; left >= 0; --left) {
    CHECK(prefixes.evict_one());
    CHECK(prefixes.num_pages() == left);
  }
  CHECK(f.pages.num_free() == 6);
}

TEST_CASE("a page that is known already replaces its copy") {
  Fixture f(4);
  PrefixCache prefixes(f.pages);
  const Ids text = counting(64);
  Ids first = take_pages(f.pages, 1), second = take_pages(f.pages, 1);
  prefixes.insert(text, first);
  prefixes.insert(text, second);
  CHECK(second == first);
  CHECK(f.pages.num_refs(first[0]) == 3);
  CHECK(f.pages.num_free() == 3);
}

TEST_CASE(
    "eviction takes the least recently used page, ends of chains first, nobody's page in use") {
  Fixture f(4);
  PrefixCache prefixes(f.pages);
  const Ids a = counting(128), b = counting(64, 1000), c = counting(64, 2000);
  Ids pa = take_pages(f.pages, 2), pb = take_pages(f.pages, 1), pc = take_pages(f.pages, 1);
  prefixes.insert(a, pa);
  prefixes.insert(b, pb);
  prefixes.insert(c, pc);
  CHECK(prefixes.num_evictable() == 0);
  CHECK(!prefixes.evict_one());
  release_all(f.pages, pa);
  release_all(f.pages, pb);  // c stays in use
  CHECK(prefixes.num_evictable() == 3);
  release_all(f.pages, prefixes.match(std::span(a).first(64)));  // a's first page is recent again
  CHECK(prefixes.evict_one());
  CHECK(prefixes.matching_pages(a) == 1);
  CHECK(prefixes.evict_one());
  CHECK(prefixes.matching_pages(b) == 0);
  CHECK(prefixes.evict_one());
  CHECK(prefixes.matching_pages(a) == 0);
  CHECK(!prefixes.evict_one());
  CHECK(prefixes.matching_pages(c) == 1);
  CHECK(f.pages.num_free() == 3);
}

TEST_CASE("random use keeps the books and never hands out a wrong page") {
  Fixture f(24);
  PrefixCache prefixes(f.pages);
  Rng rng(4, "trace");
  std::map<int32_t, Ids> content;  // what each page was filled with
  for (int round = 0; round < 2000; ++round) {
    Ids text;
    const int64_t num_pages = rng.range(1, 4);
    for (int64_t p = 0; p < num_pages; ++p) {
      const auto value = static_cast<int32_t>(rng.below(3));
      for (int64_t i = 0; i < kPageTokens; ++i) text.push_back(value);
    }
    Ids pages = prefixes.match(text);
    for (size_t p = 0; p < pages.size(); ++p)
      REQUIRE(content[pages[p]] == Ids(text.begin(), text.begin() + 64 * (std::ptrdiff_t(p) + 1)));
    while (pages.size() < static_cast<size_t>(num_pages)) {
      std::optional<int32_t> page = f.pages.allocate();
      if (!page && prefixes.evict_one()) page = f.pages.allocate();
      REQUIRE(page);
      pages.push_back(*page);
      content[*page] = Ids(text.begin(), text.begin() + 64 * std::ssize(pages));
    }
    prefixes.insert(text, pages);
    release_all(f.pages, pages);
    REQUIRE(f.pages.num_free() + prefixes.num_pages() == 24);
  }
  prefixes.clear();
  CHECK(f.pages.num_free() == 24);
}

}  // namespace
}  // namespace fathom
