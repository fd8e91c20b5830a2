// Products of f32 matrices on a matrix unit for bf16 (gemm.h: split products). Operands are written
// as strips of three bf16 parts, then whole blocks of strips are multiplied.
//
// A strip is 16 rows of A or 16 columns of B for all k, as steps of 32 k [ceil(k/32)][3]: the high,
// middle and low parts, in A [16 rows][32 k], in B [16 pairs of k][16 columns][2]. What lies behind
// the last row, column or k is zero.
#pragma once

#include <cstdint>

namespace fathom::simd {

inline constexpr int64_t kSplitRows = 16;                       // or columns, of a strip
inline constexpr int64_t kSplitStep = 32;                       // k of a step
inline constexpr int64_t kSplitPart = kSplitRows * kSplitStep;  // numbers of one part of a step

constexpr int64_t split_steps(int64_t k) { return (k + kSplitStep - 1) / kSplitStep; }
constexpr int64_t split_strips(int64_t rows) { return (rows + kSplitRows - 1) / kSplitRows; }
// Numbers from one strip to the next: strips do not start in the same cache sets.
constexpr int64_t split_stride(int64_t k) { return split_steps(k) * 3 * kSplitPart + 32; }

struct SplitArgs {
  const float* src = nullptr;
  int64_t ld = 0;
  const int32_t* gather = nullptr;  // when set, row i is src + gather[i] * ld
  int64_t rows = 0, cols = 0;
  uint16_t* dst = nullptr;  // = strips, split_stride(k) numbers apart; 64-byte aligned
};

// The processor has such a unit, and dispatch did not choose an instruction set without it.
bool has_split_products();

// Strips of B from src = B. Needs has_split_products().
void split_columns(const SplitArgs& s);

}  // namespace fathom::simd
