// The element-wise parts of attention and the indexer that one instruction set offers. Score tiles
// are rows of kBlock numbers; bit i of a row's mask says that the row sees key i of the block. All
// sums run over 16 logical lanes and a fixed tree, so every instruction set gives the same bits.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_feed.h"
#include "fathom/kernels/kernels.h"

namespace fathom::simd {

inline constexpr int64_t kBlock = kPageTokens;  // keys of a block

constexpr int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }

// The lowest n bits; n is clamped to 0 .. 64.
constexpr uint64_t low_bits(int64_t n) {
  return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

struct AttentionVec {
  // One step of the online softmax: s becomes exp(scale * s - max') (0 where masked), sum and max
  // follow, alpha[row] = exp(max - max') is what earlier sums have to be multiplied with.
  void (*softmax_block)(float* s, const uint64_t* mask, int64_t rows, float scale, float* max,
                        float* sum, float* alpha);
  // z[row] *= alpha[row]; cols a multiple of 16
  void (*scale_rows)(float* z, int64_t ld, int64_t cols, int64_t rows, const float* alpha);
  // The softmax states (max, sum, z) of two key ranges, the second into the first. Empty states
  // have sum 0.
  void (*merge_rows)(float* z, const float* z2, int64_t ld, int64_t cols, int64_t rows, float* max,
                     float* sum, const float* max2, const float* sum2);
  // out[cols] = z / sum
  void (*divide)(const float* z, float sum, int64_t cols, float* out);
  // s = exp(scale * s - lse[row]), dp = scale * s * (dp - delta[row]); 0 where masked
  void (*softmax_backward)(float* s, float* dp, const uint64_t* mask, int64_t rows, float scale,
                           const float* lse, const float* delta);
  // sum of a * b
  float (*dot)(const float* a, const float* b, int64_t n);
  // out[64] = sum over `heads` rows, ascending, of exp(scale * s - lse[head]); 0 where masked
  void (*add_probabilities)(const float* s, int64_t heads, uint64_t mask, float scale,
                            const float* lse, float* out);
  // out[64] = sum over `heads` rows, ascending, of w[head] * max(dots, 0)
  void (*relu_combine)(const float* dots, int64_t heads, const float* w, float* out);
  // In place dots[head] = d * w[head] where dots > 0 and not masked, else 0; dw[head] += sum of
  // d * max(dots, 0)
  void (*relu_backward)(float* dots, int64_t heads, uint64_t mask, const float* w, const float* d,
                        float* dw);
  // KL(p / sum p || softmax(scores)) of a row of `blocks` blocks; p is normalised in place. With
  // `gradient`, scores become grad_scale * (softmax(scores) - p), 0 where masked.
  float (*kl_row)(float* p, float* scores, const uint64_t* mask, int64_t blocks, bool gradient,
                  float grad_scale);
  // dst[i] = the `width` numbers at src[i], f32 or bf16, for n rows; later rows are asked for
  // early.
  void (*gather_f32)(const void* const* src, int64_t n, int64_t width, float* dst, int64_t ld);
  void (*gather_bf16)(const void* const* src, int64_t n, int64_t width, float* dst, int64_t ld);
  // Rows of KeyPages with dtype e4m3: `coded` of `width` numbers in codes.
  void (*gather_e4m3)(const void* const* src, int64_t n, int64_t width, int64_t coded, float* dst,
                      int64_t ld);
  // dst[i] += the `width` numbers of row i of src, in ascending i
  void (*scatter_add)(const float* src, int64_t ld, int64_t n, int64_t width, float* const* dst);
};

// Of the instruction set that dispatch chose.
const AttentionVec& attention_vec();

}  // namespace fathom::simd
