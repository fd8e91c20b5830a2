#include "fathom/text/bpe_trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <queue>
#include <set>
#include <unordered_map>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/text/pre_tokenizer.h"
#include "fathom/text/tokenizer_builder.h"
#include "fathom/text/utf8.h"
#include "fathom/text/v3_scanner.h"

namespace fathom {
namespace {

struct Pair {
  int32_t left, right;
  auto operator<=>(const Pair&) const = default;
};
struct PairHash {
  size_t operator()(Pair p) const {
    return (static_cast<size_t>(static_cast<uint32_t>(p.left)) << 32 |
            static_cast<uint32_t>(p.right)) *
           0x9E3779B97F4A7C15u;
  }
};

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

// Counts of adjacent pairs over all words, kept up to date while pairs are merged.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (uint32_t w = 0; w < words_.size(); ++w) count_word(w, +1);
    for (const auto& [pair, info] : pairs_) heap_.push({info.count, pair});
    changed_.clear();
    ++epoch_;
  }

  // The most frequent pair; of equal ones the smallest. Count 0: there is none left.
  std::pair<Pair, int64_t> best() {
    while (!heap_.empty()) {
      const Entry top = heap_.top();
      const int64_t count = pairs_[top.pair].count;
      if (count == top.count && count > 0 && !dropped_.contains(top.pair)) return {top.pair, count};
      heap_.pop();  // an older count; the current one is in the heap as well
    }
    return {{0, 0}, 0};
  }

  // Never to be merged.
  void drop(Pair pair) { dropped_.insert(pair); }

  void merge(Pair pair, int32_t merged) {
    const std::vector<uint32_t> where = std::move(pairs_[pair].words);
    for (const uint32_t w : where) {
      std::vector<int32_t>& s = words_[w].symbols;
      if (!contains(s, pair)) continue;
      count_word(w, -1);
      size_t out = 0;
      for (size_t i = 0; i < s.size(); ++i) {
        const bool here = i + 1 < s.size() && s[i] == pair.left && s[i + 1] == pair.right;
        s[out++] = here ? merged : s[i];
        if (here) ++i;
      }
      s.resize(out);
      count_word(w, +1, merged);
    }
    for (const Pair p : changed_)
      if (const int64_t count = pairs_[p].count; count > 0) heap_.push({count, p});
    changed_.clear();
    ++epoch_;
  }

 private:
  static constexpr int32_t kAny = -1;
  struct Info {
    int64_t count = 0;
    uint32_t epoch = 0;           // of the last change
    std::vector<uint32_t> words;  // that hold the pair, or held it
  };
  struct Entry {
    int64_t count;
    Pair pair;
    bool operator<(const Entry& o) const {  // the top of the heap is the greatest
      return count != o.count ? count < o.count : pair > o.pair;
    }
  };

  static bool contains(const std::vector<int32_t>& s, Pair pair) {
    for (size_t i = 0; i + 1 < s.size(); ++i)
      if (s[i] == pair.left && s[i + 1] == pair.right) return true;
    return false;
  }

  // Adds or subtracts the pairs of one word; words are noted only for pairs with `fresh`, others
  // know them.
  void count_word(uint32_t w, int64_t sign, int32_t fresh = kAny) {
    const Word& word = words_[w];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair pair{word.symbols[i], word.symbols[i + 1]};
      Info& info = pairs_[pair];
      info.count += sign * word.count;
      if (info.epoch != epoch_) changed_.push_back(pair);
      info.epoch = epoch_;
      const bool note = sign > 0 && (fresh == kAny || pair.left == fresh || pair.right == fresh);
      if (note && (info.words.empty() || info.words.back() != w)) info.words.push_back(w);
    }
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, Info, PairHash> pairs_;
  std::vector<Pair> changed_;  // in this epoch, which is one merge
  uint32_t epoch_ = 1;
  std::set<Pair> dropped_;
  std::priority_queue<Entry> heap_;
};

std::string in_alphabet(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(byte_to_alphabet(static_cast<unsigned char>(c)), out);
  return out;
}

Json split_json(std::string_view pattern) {
  return Json::object({{"type", Json::string("Split")},
                       {"pattern", Json::object({{"Regex", Json::string(std::string(pattern))}})},
                       {"behavior", Json::string("Isolated")},
                       {"invert", Json::boolean(false)}});
}

Json byte_level_json(bool add_prefix_space, bool use_regex) {
  return Json::object({{"type", Json::string("ByteLevel")},
                       {"add_prefix_space", Json::boolean(add_prefix_space)},
                       {"trim_offsets", Json::boolean(true)},
                       {"use_regex", Json::boolean(use_regex)}});
}

Json chain_json(bool individual_digits) {
  std::vector<Json> steps;
  steps.push_back(split_json(individual_digits ? kV3SingleDigits : kV3Digits));
  steps.push_back(split_json(kV3Cjk));
  steps.push_back(split_json(kV3Words));
  steps.push_back(byte_level_json(false, false));
  return Json::object(
      {{"type", Json::string("Sequence")}, {"pretokenizers", Json::array(std::move(steps))}});
}

// The learnt vocabulary: bytes of each token, and the merges in order.
struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<Pair> merges;
};

std::string to_json(const BpeTrainOptions& options, const Vocabulary& v) {
  const size_t num_special = options.special_tokens.size();
  std::vector<Json> added, merges;
  std::vector<Json::Member> vocab;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const bool special = i < num_special;
    const Json id = Json::number(static_cast<int64_t>(i));
    vocab.emplace_back(special ? v.tokens[i] : in_alphabet(v.tokens[i]), id);
    if (!special) continue;
    added.push_back(Json::object({{"id", id},
                                  {"content", Json::string(v.tokens[i])},
                                  {"single_word", Json::boolean(false)},
                                  {"lstrip", Json::boolean(false)},
                                  {"rstrip", Json::boolean(false)},
                                  {"normalized", Json::boolean(false)},
                                  {"special", Json::boolean(true)}}));
  }
  for (const Pair m : v.merges) {
    const auto text = [&](int32_t id) { return in_alphabet(v.tokens[static_cast<size_t>(id)]); };
    merges.push_back(Json::string(text(m.left) + " " + text(m.right)));
  }
  const Json model = Json::object({{"type", Json::string("BPE")},
                                   {"dropout", Json()},
                                   {"unk_token", Json()},
                                   {"continuing_subword_prefix", Json()},
                                   {"end_of_word_suffix", Json()},
                                   {"fuse_unk", Json::boolean(false)},
                                   {"byte_fallback", Json::boolean(false)},
                                   {"vocab", Json::object(std::move(vocab))},
                                   {"merges", Json::array(std::move(merges))}});
  const Json file = Json::object({{"version", Json::string("1.0")},
                                  {"truncation", Json()},
                                  {"padding", Json()},
                                  {"added_tokens", Json::array(std::move(added))},
                                  {"normalizer", Json()},
                                  {"pre_tokenizer", chain_json(options.individual_digits)},
                                  {"post_processor", byte_level_json(false, false)},
                                  {"decoder", byte_level_json(false, false)},
                                  {"model", model}});
  return file.dump(1) + "\n";
}

void check(const BpeTrainOptions& options) {
  const size_t fixed = options.special_tokens.size() + 256;
  if (options.vocab_size < 0 || static_cast<size_t>(options.vocab_size) < fixed)
    throw Error(Code::kInvalidArgument,
                fmt::format("expected a vocab_size of at least {} (256 bytes and {} special "
                            "tokens), found {}",
                            fixed, options.special_tokens.size(), options.vocab_size));
  const std::set<std::string> unique(options.special_tokens.begin(), options.special_tokens.end());
  if (unique.size() != options.special_tokens.size() || unique.contains(""))
    throw Error(Code::kInvalidArgument, "a special token is empty or stands twice in the list");
  for (const std::string& token : unique) {
    // One character would collide with a byte of the alphabet.
    if (utf8_valid_prefix(token) != token.size() || utf8_front(token).size_bytes == token.size())
      throw Error(Code::kInvalidArgument,
                  fmt::format("the special token \"{}\" is a single character or not UTF-8",
                              utf8_lossy(token)));
  }
}

}  // namespace

struct BpeTrainer::Impl {
  BpeTrainOptions options;
  PreTokenizer pre_tokenizer;
  PreTokenizer::Scratch scratch;
  std::unordered_map<std::string, int64_t> counts;
  std::string key;
};

BpeTrainer::BpeTrainer(BpeTrainOptions options) {
  check(options);
  const int digits = options.individual_digits ? 1 : 3;
  impl_ = std::make_unique<Impl>(Impl{std::move(options), PreTokenizer::v3(digits), {}, {}, {}});
}
BpeTrainer::~BpeTrainer() = default;
BpeTrainer::BpeTrainer(BpeTrainer&&) noexcept = default;
BpeTrainer& BpeTrainer::operator=(BpeTrainer&&) noexcept = default;

void BpeTrainer::add(std::string_view text) {
  const size_t good = utf8_valid_prefix(text);
  if (good != text.size())
    throw Error(Code::kInvalidArgument,
                fmt::format("expected UTF-8 text, found a malformed byte at {}", good),
                "convert the text to UTF-8 first");
  for (const std::string_view word : impl_->pre_tokenizer.split(text, impl_->scratch)) {
    impl_->key = word;
    ++impl_->counts[impl_->key];
  }
}

std::string BpeTrainer::train() const {
  const BpeTrainOptions& options = impl_->options;
  Vocabulary v;
  v.tokens = options.special_tokens;
  const auto first_byte = static_cast<int32_t>(v.tokens.size());
  for (int b = 0; b < 256; ++b) v.tokens.push_back(std::string(1, static_cast<char>(b)));

  std::unordered_map<std::string, int32_t> id_of;
  for (size_t i = 0; i < v.tokens.size(); ++i) id_of[v.tokens[i]] = static_cast<int32_t>(i);
  std::vector<Word> words;
  for (const auto& [text, count] : impl_->counts) {
    Word& word = words.emplace_back(Word{{}, count});
    for (const char c : text) word.symbols.push_back(first_byte + static_cast<unsigned char>(c));
  }
  PairCounts pairs(std::move(words));
  while (v.tokens.size() < static_cast<size_t>(options.vocab_size)) {
    const auto [pair, count] = pairs.best();
    if (count < std::max<int64_t>(1, options.min_frequency)) break;
    const auto bytes = [&](int32_t id) { return v.tokens[static_cast<size_t>(id)]; };
    const std::string joined = bytes(pair.left) + bytes(pair.right);
    // The same bytes can arise from other parts ("ab" "c", "a" "bc"): one token, two merges.
    const auto [it, fresh] = id_of.try_emplace(joined, static_cast<int32_t>(v.tokens.size()));
    if (it->second < first_byte) {  // plain text must not become a special token
      pairs.drop(pair);
      continue;
    }
    if (fresh) v.tokens.push_back(joined);
    pairs.merge(pair, it->second);
    v.merges.push_back(pair);
  }
  return to_json(options, v);
}

}  // namespace fathom
