// Products with quantised weights (gemm.h: Q8, Q4): coded rows of A, the register tiles that one
// instruction set offers, and the drivers around them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fathom/kernels/gemm.h"

namespace fathom {

class ThreadPool;

namespace simd {

// Bytes of codes of one group of 64 k in a panel.
constexpr int64_t quant_group_bytes(PackedType type) {
  return kQuantGroup * kPanelCols / (type == PackedType::kQ8 ? 1 : 2);
}

// Rows of A in codes; `groups` scales and shifts a row, 64 * groups codes. shift = -offset * (sum
// of the group's codes), where offset is what weight codes are stored with (128 or 8): the sum of
// products begins with it.
struct CodedRows {
  int8_t* codes = nullptr;
  float* scales = nullptr;
  int32_t* shifts = nullptr;
  int64_t groups = 0;
};

// rows[i] of A into `to`, by the rule of gemm.h.
struct CodeArgs {
  const float* a = nullptr;
  int64_t lda = 0, k = 0;
  int64_t begin = 0, end = 0;  // rows
  int32_t offset = 0;
  CodedRows to;
};
using CodeFn = void (*)(const CodeArgs&);

// rows x (16 * panels) outputs over all k. Row i of the tile is row (rows ? rows[i] : i) of `a`.
struct IntTileArgs {
  CodedRows a;
  const int32_t* rows = nullptr;
  const uint8_t* b = nullptr;        // first of the adjacent panels
  const uint16_t* scales = nullptr;  // of the first panel
  const float* c_old = nullptr;      // shares ld_out; null: out = sum, else c_old + sum
  float* out = nullptr;
  int64_t ld_out = 0;
  int64_t cols = 0;  // columns to write, at most 16 * panels
};
using IntTileFn = void (*)(const IntTileArgs&);

// m rows x whole panels, for a matrix unit: 16 rows at a time, the last ones padded.
struct IntBlockArgs {
  CodedRows a;
  const int32_t* rows = nullptr;  // as in IntTileArgs
  const uint8_t* b = nullptr;
  const uint16_t* scales = nullptr;
  float* out = nullptr;  // (+)=
  int64_t ld_out = 0;
  int64_t m = 0, cols = 0;
  bool add = false;
};
using IntBlockFn = void (*)(const IntBlockArgs&);
inline constexpr int64_t kBlockRows = 16;
inline constexpr int64_t kLeastBlockRows = 11;  // fewer are cheaper in tiles

inline constexpr int kMaxIntRows = 6, kMaxIntPanels = 4;

struct IntTable {
  int max_rows;
  int panels[kMaxIntRows + 1];  // widest tile for so many rows
  IntTileFn q8[kMaxIntRows + 1][kMaxIntPanels + 1];
  IntTileFn q4[kMaxIntRows + 1][kMaxIntPanels + 1];
  CodeFn code_rows;
  IntBlockFn block_q8, block_q4;  // null without a matrix unit
};

// Of the instruction set that dispatch chose, fastest first; the others need less of the machine
// and give the same bits.
std::vector<const IntTable*> int_tables();
const IntTable& int_table();

// gemm_many() for those products that have quantised weights, in one region; gemm_chain() where all
// have them; gemm_grouped() where all groups have the same type.
void int_gemm_many(const GemmParams* p, int64_t count, ThreadPool& pool);
void int_gemm_chain(std::span<const GemmParams> first, std::span<const GemmParams> then,
                    ThreadPool& pool);
void int_gemm_grouped(const GroupedGemmParams& p, ThreadPool& pool);

}  // namespace simd
}  // namespace fathom
