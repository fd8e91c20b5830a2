// Attention over latents of bf16 on the matrix unit, where the machine has one for bf16. Keys are
// what they are, a query or a probability is the sum of three bf16 numbers, exactly: split products
// (gemm.h) with operands of which one has no middle and low parts. Their order of summation:
//   score    over ascending blocks of 32 numbers of a key
//   z        of a chunk: over ascending blocks of 32 keys
// The softmax has blocks of 64 keys as elsewhere, but the probabilities of a chunk's earlier blocks
// are scaled instead of their sums. A row's bits depend on its own query and keys alone.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

inline constexpr int64_t kHalfRows = 16;   // query rows of a group
inline constexpr int64_t kHalfSpan = 32;   // numbers or keys of one product
inline constexpr int64_t kHalfBlocks = 4;  // of a chunk
constexpr int64_t half_cols(int64_t n) { return (n + kHalfSpan - 1) / kHalfSpan * kHalfSpan; }
// Numbers of a group's queries, of a block's copy, of a tile of pairs and of 64 columns of a
// chunk's (a line more, so that neighbours start in other cache sets), of all its pairs.
constexpr int64_t half_query_size(int64_t width) { return kHalfRows * 3 * half_cols(width); }
constexpr int64_t half_copy_size(int64_t width) { return kBlock * half_cols(width); }
inline constexpr int64_t kHalfTile = 17 * 32;
inline constexpr int64_t kHalfQuad = kHalfBlocks * kBlock / 32 * 4 * kHalfTile + 64;
constexpr int64_t half_pairs_size(int64_t C) { return (C + 63) / 64 * kHalfQuad; }

// Keys of a chunk.
struct HalfKeys {
  const void* const* key = nullptr;  // rows of bf16 in any place
  int64_t size = 0;
  int64_t width = 0, C = 0;  // numbers of a row, the first C of them make sums
  // For few rows of queries: load_block does nothing, keys are read where they are. Width and C are
  // multiples of kHalfSpan then.
  bool in_place = false;
  uint16_t *copy = nullptr, *pairs = nullptr;  // room for a block, for all pairs
  const uint16_t* rows = nullptr;  // of the block that was loaded: the copy, or where they are
  int64_t ld = 0;
};

struct AttentionBf16 {
  // Up to 16 rows q[row * ld], in parts.
  void (*split_queries)(const float* q, int64_t ld, int64_t rows, int64_t width, uint16_t* parts);
  void (*load_block)(HalfKeys* keys, int64_t block);
  // s[row][64] = scores of `rows` rows and the block, which was loaded last; columns behind the
  // last key are anything.
  void (*score)(const uint16_t* parts, const HalfKeys& keys, int64_t block, int64_t rows, float* s);
  // z[row][half_cols(C)] = sum over keys (all blocks are loaded) of p[block * ld_block + row * 64 +
  // key] * latent. Columns stand in an order of their own until in_order(a row's).
  void (*weigh)(const float* p, int64_t ld_block, int64_t rows, const HalfKeys& keys, float* z,
                int64_t ld);
  void (*in_order)(float* z, int64_t cols);
};

// Of the instruction set that dispatch chose; null: not on this machine.
const AttentionBf16* attention_bf16();

}  // namespace fathom::simd
