// What attention computes with a chunk of up to 256 keys where it is not an f32 chain: latents of
// bf16 on the matrix unit (attention_bf16.h), latents in integer codes (attention_codes.h). The
// softmax has blocks of 64 keys as elsewhere, but the probabilities of a chunk's earlier blocks are
// scaled instead of their sums. A row's bits depend on its own query and keys alone.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

inline constexpr int64_t kChunkBlocks = 4;
inline constexpr int64_t kChunk = kChunkBlocks * kBlock;  // keys that one softmax state is of

struct KeyChunk {
  const void* const* key = nullptr;  // rows of a cache in any place
  int64_t size = 0;
  int64_t C = 0, R = 0;  // numbers of a latent, of what follows it in a row
  // For few rows of queries: keys are read where they are if the way can do that. C and R are
  // multiples of 32 then.
  bool in_place = false;
  // Where in_place: asks for rows of later keys, so many lines in a step of the products.
  KeyFeed* feed = nullptr;
  int64_t asked = 1;
  std::byte *block = nullptr, *whole = nullptr;  // room for one block, for what all blocks leave
  const uint16_t* rows =
      nullptr;  // of bf16, of the block that was loaded: a copy, or where they are
  int64_t ld = 0;
};

// One way to compute. `group` is what load_queries made of up to `rows` rows.
struct ChunkProducts {
  int64_t rows;
  // Sizes in bytes, of a group and of KeyChunk's block and whole; columns of a row of sums.
  int64_t (*group_bytes)(int64_t C, int64_t R);
  int64_t (*block_bytes)(int64_t C, int64_t R);
  int64_t (*whole_bytes)(int64_t C);
  int64_t (*z_cols)(int64_t C);
  // q[row * ld]: C + R numbers of each row
  void (*load_queries)(const float* q, int64_t ld, int64_t rows, int64_t C, int64_t R,
                       std::byte* group);
  void (*load_block)(KeyChunk* keys, int64_t block);
  // s[row][64] = scores of `rows` rows and the block, which was loaded last; columns behind the
  // last key are anything.
  void (*score)(const std::byte* group, const KeyChunk& keys, int64_t block, int64_t rows,
                float* s);
  // z[row][z_cols] = sum over keys (all blocks are loaded) of p[block * ld_block + row * 64 + key]
  // * latent; p behind the last key is 0. Columns stand in an order of their own until in_order(a
  // row's).
  void (*weigh)(const float* p, int64_t ld_block, int64_t rows, const KeyChunk& keys, float* z,
                int64_t ld);
  void (*in_order)(float* z, int64_t cols);
};

}  // namespace fathom::simd
