// C = A * B with B in strips of three bf16 parts (split_products.h), for gradients of inputs: rows
// of A are split by the thread that multiplies them, while the unit works on the rows before.
#pragma once

#include <cstdint>

namespace fathom::simd {

struct SplitRowsArgs {
  const float* a = nullptr;  // [m][k], row stride lda
  int64_t lda = 0;
  const int32_t* a_rows = nullptr;  // when set, row i of A is a + a_rows[i] * lda
  int64_t m = 0, k = 0, cols = 0;   // at least 1
  const uint16_t* b = nullptr;      // strips of `cols` columns
  float* c = nullptr;               // [m][cols], row stride ldc; must not overlap A
  int64_t ldc = 0;
  bool add = false;  // C += instead of C =
};

// k of one pass over some rows: all, or a part that stays in the caches.
constexpr int64_t split_pass(int64_t k) { return k <= 1024 ? k : 256; }
// Columns of B whose parts of a pass stay in the second-level cache with the rows.
constexpr int64_t split_task_columns(int64_t k) {
  constexpr int64_t kBytes = 1572864;
  return (kBytes / 6 / split_pass(k) + 31) / 32 * 32;
}

// Needs has_split_products(). Bits of an element depend on its row and column alone.
void split_rows_times(const SplitRowsArgs& args);

}  // namespace fathom::simd
