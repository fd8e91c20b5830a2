#include "fathom/train/data/batcher.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr int32_t kBos = 0, kEos = 1, kPad = 2, kFimBegin = 3, kFimHole = 4, kFimEnd = 5;
constexpr BatchTokens kTokens = {kPad, kFimBegin, kFimHole, kFimEnd};

// Removed again when the tests end.
struct Folders {
  ~Folders() {
    for (const std::string& path : paths) std::filesystem::remove_all(path);
  }
  std::vector<std::string> paths;
};

std::string temporary_folder() {
  char path[] = "/tmp/fathom_batch_XXXXXX";
  REQUIRE(mkdtemp(path) != nullptr);
  static Folders folders;
  folders.paths.emplace_back(path);
  return path;
}

// `count` documents BOS x x+1 ... EOS where no content token occurs twice in all shards.
std::vector<std::shared_ptr<const Shard>> sample_shards(int count, int64_t shortest,
                                                        int64_t longest, bool mask = false,
                                                        uint64_t tokenizer = 9) {
  const std::string folder = temporary_folder();
  std::vector<std::shared_ptr<const Shard>> shards;
  Rng rng(1, "batch");
  int32_t next = 10;
  for (int s = 0; s < 2; ++s) {
    ShardWriter writer({.vocab_size = 200000, .tokenizer_id = tokenizer, .has_loss_mask = mask});
    for (int i = 0; i < count; ++i) {
      std::vector<int32_t> tokens = {kBos};
      for (int64_t n = rng.range(shortest, longest); n > 0; --n) tokens.push_back(next++);
      tokens.push_back(kEos);
      std::vector<uint8_t> loss;
      for (const int32_t token : tokens) {
        if (mask) loss.push_back(static_cast<uint8_t>(token % 3 == 0));
      }
      writer.add(tokens, loss);
    }
    const std::string path = folder + "/" + std::to_string(s);
    writer.write(path);
    shards.push_back(std::make_shared<const Shard>(path));
  }
  return shards;
}

bool same(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.pos == b.pos &&
         a.doc_bounds == b.doc_bounds && a.loss_mask == b.loss_mask &&
         a.num_loss_tokens == b.num_loss_tokens;
}

// What must hold of any batch over sample_shards without fill-in-the-middle.
void check_batch(const Batch& b, const BatchOptions& o) {
  const size_t rows = static_cast<size_t>(o.batch_size * o.seq_len);
  REQUIRE(b.tokens.size() == rows);
  REQUIRE(b.targets.size() == rows);
  REQUIRE(b.pos.size() == rows);
  REQUIRE(b.loss_mask.size() == rows);
  REQUIRE(b.doc_bounds.front() == 0);
  REQUIRE(b.doc_bounds.back() == static_cast<int32_t>(rows));
  for (int64_t w = 0; w < o.batch_size; ++w) {  // sequences do not cross windows
    CHECK(std::binary_search(b.doc_bounds.begin(), b.doc_bounds.end(),
                             static_cast<int32_t>(w * o.seq_len)));
  }
  for (size_t s = 0; s + 1 < b.doc_bounds.size(); ++s) {
    REQUIRE(b.doc_bounds[s] < b.doc_bounds[s + 1]);
    const size_t begin = static_cast<size_t>(b.doc_bounds[s]);
    const size_t end = static_cast<size_t>(b.doc_bounds[s + 1]);
    for (size_t i = begin; i < end; ++i) {
      CHECK(b.pos[i] == static_cast<int32_t>(i - begin));
      if (b.tokens[i] == kPad) {
        CHECK(b.loss_mask[i] == 0.0f);
        continue;
      }
      if (i + 1 < end) CHECK(b.targets[i] == b.tokens[i + 1]);
      if (b.tokens[i] >= 10 && b.targets[i] != kEos) CHECK(b.targets[i] == b.tokens[i] + 1);
    }
  }
}

std::multiset<int32_t> epoch_targets(Batcher& batcher, const BatchOptions& o) {
  std::multiset<int32_t> seen;
  for (uint64_t w = 0; w < batcher.windows_in_epoch(0); ++w) {
    const Batch b = batcher.batch(w);
    check_batch(b, o);
    for (size_t i = 0; i < b.tokens.size(); ++i) {
      if (b.tokens[i] != kPad && b.targets[i] != kEos) seen.insert(b.targets[i]);
    }
  }
  return seen;
}

}  // namespace

TEST_CASE(
    "an epoch predicts every token once, cut or whole, at window sizes around the documents'") {
  const auto shards = sample_shards(20, 1, 30);
  const size_t tokens = shards[0]->num_tokens() + shards[1]->num_tokens() - 2 * 40;
  for (const bool whole : {false, true}) {
    for (const int64_t seq_len : {1, 2, 7, 30, 31, 32, 64, 1000}) {
      BatchOptions o{.batch_size = 1, .seq_len = seq_len, .whole_documents = whole};
      Batcher batcher(shards, o, kTokens);
      const std::multiset<int32_t> seen = epoch_targets(batcher, o);
      CHECK(seen.size() == tokens);
      CHECK(std::set<int32_t>(seen.begin(), seen.end()).size() == tokens);
    }
  }
}

TEST_CASE("whole documents are never cut when a window can hold them, and little is padded") {
  const auto shards = sample_shards(200, 10, 60);
  BatchOptions o{.batch_size = 1, .seq_len = 256, .whole_documents = true};
  Batcher batcher(shards, o, kTokens);
  int64_t pads = 0, rows = 0;
  for (uint64_t w = 0; w < batcher.windows_in_epoch(0); ++w) {
    const Batch b = batcher.batch(w);
    check_batch(b, o);
    for (size_t s = 0; s + 1 < b.doc_bounds.size(); ++s) {
      const int32_t first = b.tokens[static_cast<size_t>(b.doc_bounds[s])];
      CHECK((first == kBos || first == kPad));
    }
    rows += 256;
    pads += std::count(b.tokens.begin(), b.tokens.end(), kPad);
  }
  CHECK(pads * 20 < rows);
}

TEST_CASE("a batch is a function of seed and step, whatever was asked before") {
  const auto shards = sample_shards(10, 5, 40);
  for (const bool whole : {false, true}) {
    const BatchOptions o{.batch_size = 3, .seq_len = 50, .whole_documents = whole, .fim_rate = 0.3};
    Batcher in_order(shards, o, kTokens), jumping(shards, o, kTokens);
    std::vector<Batch> all;
    for (uint64_t step = 0; step < 30; ++step) all.push_back(in_order.batch(step));
    CHECK(in_order.epoch_of(29) >= 2);  // several epochs were visited
    for (const uint64_t step : {29, 3, 17, 0, 11, 28}) {
      CHECK(same(jumping.batch(step), all[step]));
      Batcher resumed(shards, o, kTokens);
      CHECK(same(resumed.batch(step), all[step]));
    }
    BatchOptions other = o;
    other.seed = 2;
    Batcher differs(shards, other, kTokens);
    CHECK_FALSE(same(differs.batch(0), all[0]));
  }
}

TEST_CASE("epochs differ in order") {
  const auto shards = sample_shards(30, 5, 40);
  BatchOptions o{.batch_size = 1, .seq_len = 100};
  Batcher batcher(shards, o, kTokens);
  const uint64_t windows = batcher.windows_in_epoch(0);
  CHECK_FALSE(same(batcher.batch(0), batcher.batch(windows)));
  CHECK(batcher.epoch_of(windows) == 1);
}

TEST_CASE("the loss mask of chat shards selects targets") {
  const auto shards = sample_shards(10, 5, 40, true);
  const BatchOptions o{.batch_size = 2, .seq_len = 64, .whole_documents = true, .fim_rate = 1};
  Batcher batcher(shards, o, kTokens);
  for (uint64_t step = 0; step < 4; ++step) {
    const Batch b = batcher.batch(step);
    check_batch(b, o);  // also: no fill-in-the-middle here
    int64_t count = 0;
    for (size_t i = 0; i < b.tokens.size(); ++i) {
      const bool expected = b.tokens[i] != kPad && b.targets[i] % 3 == 0;
      CHECK(b.loss_mask[i] == (expected ? 1.0f : 0.0f));
      count += expected;
    }
    CHECK(count == b.num_loss_tokens);
  }
}

TEST_CASE("fill-in-the-middle keeps every token of a document and its published order of parts") {
  const auto shards = sample_shards(150, 4, 40);
  const BatchOptions o{.batch_size = 1, .seq_len = 64, .whole_documents = true, .fim_rate = 0.4};
  Batcher batcher(shards, o, kTokens);
  int documents = 0, changed = 0, empty_middles = 0;
  for (uint64_t w = 0; w < batcher.windows_in_epoch(0); ++w) {
    const Batch b = batcher.batch(w);
    for (size_t s = 0; s + 1 < b.doc_bounds.size(); ++s) {
      std::vector<int32_t> text(b.tokens.begin() + b.doc_bounds[s],
                                b.tokens.begin() + b.doc_bounds[s + 1]);
      if (text[0] == kPad) continue;
      CHECK(text[0] == kBos);
      CHECK(b.targets[static_cast<size_t>(b.doc_bounds[s + 1]) - 1] == kEos);
      ++documents;
      const auto at = [&](int32_t token) { return std::find(text.begin(), text.end(), token); };
      std::vector<int32_t> content(text.begin() + 1, text.end());
      if (at(kFimBegin) != text.end()) {
        ++changed;
        CHECK(text[1] == kFimBegin);
        REQUIRE(at(kFimHole) < at(kFimEnd));
        content.assign(text.begin() + 2, at(kFimHole));                // prefix
        content.insert(content.end(), at(kFimEnd) + 1, text.end());    // middle
        content.insert(content.end(), at(kFimHole) + 1, at(kFimEnd));  // suffix
        empty_middles += at(kFimEnd) + 1 == text.end();
        CHECK(content.size() >= 8);
      }
      for (size_t i = 0; i + 1 < content.size(); ++i) CHECK(content[i] + 1 == content[i + 1]);
    }
  }
  CHECK(documents == 300);
  CHECK(changed > 70);
  CHECK(changed < 145);
  CHECK(empty_middles < changed / 3);
}

TEST_CASE("bad options and shards that do not belong together are clear errors") {
  const auto shards = sample_shards(3, 5, 9);
  CHECK_THROWS_WITH_AS(Batcher(shards, {.batch_size = 0}), doctest::Contains("batch_size"), Error);
  CHECK_THROWS_WITH_AS(Batcher(shards, {.seq_len = 0}), doctest::Contains("seq_len"), Error);
  CHECK_THROWS_WITH_AS(Batcher(shards, {.fim_rate = 2}), doctest::Contains("fim_rate"), Error);
  CHECK_THROWS_WITH_AS(Batcher(shards, {.fim_rate = 0.1}), doctest::Contains("fill-in"), Error);
  CHECK_THROWS_WITH_AS(Batcher({}, {}), doctest::Contains("no document"), Error);
  auto mixed = shards;
  mixed.push_back(sample_shards(3, 5, 9, false, 10)[0]);
  CHECK_THROWS_WITH_AS(Batcher(mixed, {}), doctest::Contains("different tokenizers"), Error);
}

}  // namespace fathom
