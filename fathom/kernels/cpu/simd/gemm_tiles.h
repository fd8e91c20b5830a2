// The table of register tiles that one instruction set offers; the drivers around them are plain
// C++.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fathom/kernels/gemm.h"

namespace fathom::simd {

// One tile: rows x (16 * panels) outputs over k steps.
//   acc = prev (or 0); acc = fma(a, b, acc) for ascending k                       without scale
//   acc = 0; the same; acc = fma(acc, scale[col], prev (or 0))                    with scale
//   out = c_old ? c_old + acc : acc
struct TileArgs {
  int64_t k = 0;
  const float* a = nullptr;  // row tile: a[i * lda + k]; column tile: a[k * lda + i]
  int64_t lda = 0;
  const float* b = nullptr;  // b[panel * b_panel + k * b_step + col]
  int64_t b_panel = 0, b_step = kPanelCols;
  const float* scale = nullptr;  // [16 * panels], or null
  const float* prev = nullptr;   // partial sums, or null
  int64_t ld_prev = 0;
  const float* c_old = nullptr;  // shares ld_out
  float* out = nullptr;
  int64_t ld_out = 0;
  int64_t cols = 0;  // columns to write, at most 16 * panels
};
using TileFn = void (*)(const TileArgs&);

// A few rows against packed weights that are decoded in registers, all k at once.
struct StreamArgs {
  int64_t k = 0;
  const float* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;        // first panel
  int64_t b_panel = 0;            // elements between panels
  const float* scales = nullptr;  // of the first panel
  int64_t scale_panel = 0;        // floats between the scales of two panels
  const float* c_old = nullptr;
  float* out = nullptr;
  int64_t ld_out = 0;
  int64_t cols = 0;
};
using StreamFn = void (*)(const StreamArgs&);

// dst[count] = decoded src[count] (count a multiple of 16); E4M3 gives value / 256.
using DecodeFn = void (*)(const void* src, int64_t count, float* dst);

// dst[k][16] = src[16][k] transposed, row stride ld.
using TransposeFn = void (*)(const float* src, int64_t ld, int64_t k, float* dst);

inline constexpr int kMaxRows = 14, kMaxPanels = 4, kMaxStreamRows = 4, kMaxStreamPanels = 2;
inline constexpr int kNumTypes = 4;

struct TileTable {
  int max_rows;              // rows of the largest tile
  int panels[kMaxRows + 1];  // widest tile for so many rows
  TileFn row_tile[kMaxRows + 1][kMaxPanels + 1];
  TileFn col_tile[kMaxRows + 1][kMaxPanels + 1];
  StreamFn stream[kNumTypes][kMaxStreamRows + 1][kMaxStreamPanels + 1];  // not for kF32
  DecodeFn decode[kNumTypes];                                            // not for kF32
  TransposeFn transpose;
};

// Of the instruction set that dispatch chose.
const TileTable& tile_table();

// Kept per thread and grown on demand: no allocation in steady state. 64-byte aligned.
float* thread_scratch(size_t floats);

}  // namespace fathom::simd
