// Two neighbouring query tokens of a prompt that select most of their keys together: rows of these
// keys are turned once for the scores of both.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_tile.h"

namespace fathom::simd {

struct AttentionPair {
  // Bit i of word w of bits[t]: key 64 w + i of selection t is in the other one too. Returns how
  // many are; with fewer than `least` it may stop, then the bits say nothing.
  int64_t (*find_shared)(const Selected (&sel)[2], int64_t least, uint64_t* const (&bits)[2]);
  // The first n keys to `both` where their bit is set, else to `own`. Reads and writes up to 7
  // more.
  void (*split)(const void* const* key, int64_t n, const uint64_t* bits, const void** both,
                const void** own);
  // s[head][64]: column i is the next number of both[head] where bit i is set, else of own[head].
  // Reads up to 16 more.
  void (*lay_out)(const float* both, const float* own, int64_t ld, int64_t heads, uint64_t bits,
                  float* s);
};

// Null where the instruction set has no use for it.
const AttentionPair* attention_pair();

// Keys of a pair and their scores. Those in use go on by some at a time, so that rows are still in
// the cache when they are weighed.
struct PairKeys {
  struct Token {
    uint64_t* bits = nullptr;    // of its keys that are shared
    const void** key = nullptr;  // of all, ascending
    const void** own = nullptr;  // of those that are not shared
    int64_t size = 0;
    int64_t begin = 0, end = 0;                // those in use; multiples of 64, but for size
    int64_t begin_shared = 0, end_shared = 0;  // how many before these are shared
    int64_t begin_own() const { return begin - begin_shared; }
    int64_t end_own() const { return end - end_shared; }
  };
  Token token[2];
  const void** both = nullptr;                  // shared keys
  float *of_both = nullptr, *of_own = nullptr;  // [2 H][ld] scores, rows of the second token last
  int64_t ld = 0;

  static int64_t padded(int64_t most) { return round_up(most, kBlock) + kBlock; }
  static int64_t bytes(int64_t heads, int64_t most) {
    return 5 * Scratch::bytes<void*>(padded(most)) +
           2 * Scratch::bytes<uint64_t>(padded(most) / kBlock) +
           2 * Scratch::bytes<float>(2 * heads * padded(most));
  }
  // For tokens of at most `most` keys.
  PairKeys(Scratch s, int64_t heads, int64_t most) : ld(padded(most)) {
    both = s.take<const void*>(ld);
    for (Token& t : token) {
      t.bits = s.take<uint64_t>(ld / kBlock);
      t.key = s.take<const void*>(ld);
      t.own = s.take<const void*>(ld);
    }
    of_both = s.take<float>(2 * heads * ld);
    of_own = s.take<float>(2 * heads * ld);
  }

  // The next n keys of the first token come into use after those that were, and blocks of the
  // second one that share no later ones. Returns whether there are more.
  bool go_on(int64_t n) {
    auto& [a, b] = token;
    const auto next_shared = [](const Token& t) { return std::popcount(t.bits[t.end / kBlock]); };
    const auto add_block = [&](Token& t) {
      t.end_shared += next_shared(t);
      t.end = std::min(t.end + kBlock, t.size);
    };
    for (Token& t : token) {
      t.begin = t.end;
      t.begin_shared = t.end_shared;
    }
    for (; n > 0 && a.end < a.size; n -= kBlock) add_block(a);
    const bool more = a.end < a.size;
    while (b.end < b.size &&
           (!more || (b.end + kBlock <= b.size && b.end_shared + next_shared(b) <= a.end_shared)))
      add_block(b);
    return more;
  }
};

}  // namespace fathom::simd
