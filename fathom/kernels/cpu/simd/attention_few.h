// Attention of one query token with few heads over keys that are read where they are: rows of f32
// or bf16 anywhere in memory. Lanes of a vector are heads times neighbouring keys, so that none is
// empty. Bits are those of score_block and weigh_block.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

struct AttentionFew {
  int64_t max_heads = 0;
  int64_t step = 1;  // C and the width of a row are multiples of it
  // packed [width][16]: the heads' numbers side by side.
  // s[head][ld] = q . key for n keys, columns behind them up to a multiple of 64 anything. Like
  // `weigh`, asks for rows of later keys while it computes.
  void (*score)(const float* packed, int64_t heads, int64_t width, const void* const* key,
                DType dtype, int64_t n, KeyFeed* feed, float* s, int64_t ld) = nullptr;
  // z[head][cols] = alpha[head] * z (alpha null: 0) + sum over n keys, ascending, of p[head][64] *
  // key. Columns stand in an order of their own until in_order(a row's).
  void (*weigh)(const float* p, const float* alpha, int64_t heads, const void* const* key,
                DType dtype, int64_t n, int64_t cols, KeyFeed* feed, float* z,
                int64_t ld) = nullptr;
  void (*in_order)(float* z, DType dtype, int64_t cols) = nullptr;
};

// Of the instruction set that dispatch chose.
const AttentionFew& attention_few();

}  // namespace fathom::simd
