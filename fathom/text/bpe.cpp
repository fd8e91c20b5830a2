#include "fathom/text/bpe.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr size_t kFilterBitsPerSlot = 4;
// Up to this length repeated scans of a small array beat the heap.
constexpr size_t kShortWordTokens = 48;

uint64_t hash_word(std::string_view word) {
  uint64_t h = word.size() * 0x9E3779B97F4A7C15u;
  const char* p = word.data();
  size_t left = word.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t w;
    std::memcpy(&w, p, 8);
    h = (h ^ w) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
  }
  uint64_t w = 0;
  std::memcpy(&w, p, left);
  h = (h ^ w) * 0xD6E8FEB86659FD93u;
  return h ^ h >> 32;
}

int32_t token_of_byte(const BpeModel& model, char byte) {
  const int32_t token = model.byte_token[static_cast<unsigned char>(byte)];
  if (token < 0)
    throw Error(Code::kInvalidArgument,
                fmt::format("the tokenizer has no token for the byte {:#04x}",
                            static_cast<unsigned char>(byte)),
                "use a tokenizer whose vocabulary has all 256 bytes");
  return token;
}

// The tokens that merging starts from: bytes, and characters that become one token in any company.
void start_tokens(const BpeModel& model, std::string_view word, std::vector<int32_t>& out) {
  out.clear();
  const bool solid = !model.solid_characters.empty();
  const auto tail = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(word[i]) & 0x3F);
  };
  for (size_t i = 0; i < word.size();) {
    const auto lead = static_cast<unsigned char>(word[i]);
    const size_t length = lead >= 0xE0 && lead < 0xF0 ? 3 : lead >= 0xC0 && lead < 0xE0 ? 2 : 1;
    if (solid && length > 1 && i + length <= word.size()) {
      const uint32_t code = length == 2 ? (lead & 0x1Fu) << 6 | tail(i + 1)
                                        : (lead & 0x0Fu) << 12 | tail(i + 1) << 6 | tail(i + 2);
      if (const int32_t token = model.solid_characters[code]; token >= 0) {
        out.push_back(token);
        i += length;
        continue;
      }
    }
    out.push_back(token_of_byte(model, word[i++]));
  }
}

}  // namespace

MergeTable::MergeTable(size_t num_merges)
    : slots_(std::bit_ceil(std::max<size_t>(64, num_merges * 2))),
      mask_(slots_.size() - 1),
      filter_(slots_.size() * kFilterBitsPerSlot / 64),
      filter_shift_(64 - std::countr_zero(slots_.size() * kFilterBitsPerSlot)) {}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  const size_t bit = filter_bit(key);
  filter_[bit >> 6] |= uint64_t{1} << (bit & 63);
  size_t i = slot_of(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

BpeScratch::BpeScratch() : cache_(kCacheSlots) {}

void BpeScratch::encode(const BpeModel& model, std::string_view word, std::vector<int32_t>& out) {
  if (word.empty()) return;
  if (word.size() > kCacheBytes) return merge_word(model, word, out);
  CacheEntry& entry = cache_[hash_word(word) & (kCacheSlots - 1)];
  if (entry.num_bytes == word.size() && std::memcmp(entry.word, word.data(), word.size()) == 0) {
    out.insert(out.end(), entry.tokens, entry.tokens + entry.num_tokens);
    return;
  }
  const size_t begin = out.size();
  merge_word(model, word, out);
  const size_t count = out.size() - begin;
  if (count > kCacheTokens) return;
  entry.num_bytes = static_cast<uint8_t>(word.size());
  entry.num_tokens = static_cast<uint8_t>(count);
  std::memcpy(entry.word, word.data(), word.size());
  std::memcpy(entry.tokens, out.data() + begin, count * sizeof(int32_t));
}

void BpeScratch::merge_word(const BpeModel& model, std::string_view word,
                            std::vector<int32_t>& out) {
  if (!model.whole_words.empty()) {
    if (const auto it = model.whole_words.find(word); it != model.whole_words.end()) {
      out.push_back(it->second);
      return;
    }
  }
  start_tokens(model, word, start_);
  if (start_.size() <= kShortWordTokens) return merge_short(model, out);
  merge_long(model, out);
}

void BpeScratch::merge_short(const BpeModel& model, std::vector<int32_t>& out) {
  int32_t* const token = start_.data();
  MergeTable::Merge pair[kShortWordTokens];  // of token i and token i + 1
  size_t n = start_.size();
  for (size_t i = 0; i + 1 < n; ++i) pair[i] = model.merges.find(token[i], token[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pair[i].rank < pair[best].rank) best = i;
    if (pair[best].rank == MergeTable::kNone) break;
    token[best] = pair[best].token;
    --n;
    for (size_t i = best + 1; i < n; ++i) token[i] = token[i + 1];
    for (size_t i = best + 1; i + 1 < n; ++i) pair[i] = pair[i + 1];
    if (best > 0) pair[best - 1] = model.merges.find(token[best - 1], token[best]);
    if (best + 1 < n) pair[best] = model.merges.find(token[best], token[best + 1]);
  }
  out.insert(out.end(), token, token + n);
}

void BpeScratch::merge_long(const BpeModel& model, std::vector<int32_t>& out) {
  const auto n = static_cast<int32_t>(start_.size());
  symbols_.resize(start_.size());
  heap_.clear();
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto symbol = [&](int32_t i) -> Symbol& { return symbols_[static_cast<size_t>(i)]; };
  for (int32_t i = 0; i < n; ++i)
    symbol(i) = {start_[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
  const auto candidate = [&](int32_t at) -> bool {
    if (at < 0 || symbol(at).next < 0) return false;
    const auto merge = model.merges.find(symbol(at).token, symbol(symbol(at).next).token);
    if (merge.rank == MergeTable::kNone) return false;
    heap_.push_back({merge.rank, at, merge.token});
    return true;
  };
  for (int32_t i = 0; i < n; ++i) candidate(i);
  std::make_heap(heap_.begin(), heap_.end(), later);

  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Candidate top = heap_.back();
    heap_.pop_back();
    Symbol& left = symbol(top.at);
    if (left.token < 0 || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    const auto merge = model.merges.find(left.token, right.token);
    if (merge.rank != top.rank || merge.token != top.token) continue;  // an older pair stood here
    left.token = top.token;
    right.token = -1;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = top.at;
    if (candidate(top.at)) std::push_heap(heap_.begin(), heap_.end(), later);
    if (candidate(left.previous)) std::push_heap(heap_.begin(), heap_.end(), later);
  }
  for (int32_t i = 0; i >= 0; i = symbol(i).next) out.push_back(symbol(i).token);
}

}  // namespace fathom
