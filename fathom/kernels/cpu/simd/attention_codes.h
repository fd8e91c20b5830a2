// Attention over latents in integer codes (LatentCode of kernels.h) with exact integer products.
// For each 128 numbers of a query, and for the probabilities of 64 keys times the keys' scales,
// codes of 16 bits are made: -32512 .. 32512 = largest size, to the nearest, ties to even. Integer
// sums are exact, what is computed from them in f32 has one order, so every instruction set and the
// matrix unit give the same bits:
//   score    += in ascending blocks of 128: sum * (query's scale * key's scale), one fma chain
//   z        += in ascending blocks of 64 keys: sum * scale of the probabilities, one fma
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

inline constexpr int64_t kCodedRows = 8;    // query rows of a group
inline constexpr int64_t kCodedSpan = 128;  // numbers with one scale
constexpr int64_t coded_cols(int64_t C) { return (C + kCodedSpan - 1) / kCodedSpan * kCodedSpan; }
// Of a group of query rows.
constexpr int64_t coded_query_bytes(int64_t C) { return kCodedRows * 2 * coded_cols(C); }

// A block of up to 64 keys, made from rows of a cache. cols = coded_cols(C).
struct CodedKeys {
  int8_t* codes = nullptr;  // [64][cols]
  int8_t* quads = nullptr;  // the matrix unit's copy, 64 * cols
  float* scales = nullptr;  // [cols / 128][64]
  int64_t cols = 0;
};

struct AttentionCodes {
  // Codes of 128 numbers or less; returns their scale (LatentCode).
  float (*code_span)(const float* x, int64_t n, int8_t* codes);
  // codes and scales [cols / 128][8] of up to 8 rows q[row * ld]
  void (*code_queries)(const float* q, int64_t ld, int64_t rows, int64_t C, std::byte* codes,
                       float* scales);
  // Rows of codes with C of them, in any place. What follows asks for rows of later keys while it
  // computes.
  void (*load_keys)(const void* const* key, int64_t n, int64_t C, KeyFeed* feed, CodedKeys* keys);
  // s[8][64] += the latents' part of the scores
  void (*score)(const std::byte* codes, const float* scales, const CodedKeys& keys, KeyFeed* feed,
                float* s);
  // z[row][cols] (first: =, else +=) sum over keys of p[row][64] * latent, `rows` rows of a group
  // from row `begin` on. Columns stand in an order of their own until in_order(a row's).
  void (*weigh)(const float* p, int64_t begin, int64_t rows, const CodedKeys& keys, bool first,
                KeyFeed* feed, float* z, int64_t ld);
  void (*in_order)(float* z, int64_t cols);
};

// Of the instruction set that dispatch chose: all its ways that this machine has, the best first.
std::vector<const AttentionCodes*> attention_codes_tables();
const AttentionCodes& attention_codes();

}  // namespace fathom::simd
