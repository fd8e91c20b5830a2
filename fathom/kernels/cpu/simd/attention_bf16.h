// Attention over latents of bf16 on the matrix unit, where the machine has one for bf16. Keys are
// what they are, a query or a probability is three bf16 numbers x = a + b + c, each cut off from
// what is left, which is exact. Order of summation, with sums of f32 in the unit (tdpbf16ps: even
// and odd numbers of 32 in chains from 0, both added, then to the sum; denormal numbers are 0):
//   score    += in ascending blocks of 32 numbers: those of a, of b, of c
//   z        += in ascending blocks of 32 keys: those of a, of b, of c
// A row's bits depend on its own query and keys alone.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

inline constexpr int64_t kHalfRows = 16;  // query rows of a group
inline constexpr int64_t kHalfSpan = 32;  // numbers or keys of one product
constexpr int64_t half_cols(int64_t n) { return (n + kHalfSpan - 1) / kHalfSpan * kHalfSpan; }
// Numbers of a group's queries.
constexpr int64_t half_query_size(int64_t width) { return kHalfRows * 3 * half_cols(width); }
// Numbers of a block's copy and of its pairs.
constexpr int64_t half_copy_size(int64_t width) { return kBlock * half_cols(width); }
constexpr int64_t half_pairs_size(int64_t C) { return half_cols(C) / 16 * 2 * 17 * 32; }

// A block of up to 64 keys, made from rows of a cache.
struct HalfKeys {
  uint16_t* copy = nullptr;
  uint16_t* pairs = nullptr;
  const uint16_t* rows = nullptr;  // the copy, or the cache
  int64_t ld = 0, size = 0;
};

struct AttentionBf16 {
  // Up to 16 rows q[row * ld], in parts.
  void (*split_queries)(const float* q, int64_t ld, int64_t rows, int64_t width, uint16_t* parts);
  // Rows of bf16 in any place; C <= width of them make sums.
  void (*load_keys)(const void* const* key, int64_t n, int64_t width, int64_t C, HalfKeys* keys);
  // s[row][64] = scores of `rows` rows; columns from keys.size on are anything.
  void (*score)(const uint16_t* parts, const HalfKeys& keys, int64_t width, int64_t rows, float* s);
  // z[row][half_cols(C)] (first: =, else +=) sum over keys of p[row][64] * latent, `rows` rows of a
  // group, those below `begin` with probabilities 0. Columns stand in an order of their own until
  // in_order(a row's).
  void (*weigh)(const float* p, int64_t begin, int64_t rows, const HalfKeys& keys, int64_t C,
                bool first, float* z, int64_t ld);
  void (*in_order)(float* z, int64_t cols);
};

// Of the instruction set that dispatch chose; null: not on this machine.
const AttentionBf16* attention_bf16();

}  // namespace fathom::simd
