// Matrix products on panel-packed weights: C = A * B, its per-expert form and the weight gradient.
//
// Row-exact rule. Every output element is one f32 accumulator that starts at 0 and takes k in
// ascending order with fused multiply-add, whatever m, the blocking, the threads or the instruction
// set: bit for bit the loop `for k: acc = fma(a[k], b[k], acc)`. Block-scaled weights (E4M3, I8)
// keep one such accumulator p per block of 128 k, then acc = fma(p, scale, acc) in ascending block
// order. With `add` the finished sum is added once: C = C + acc.
//
// Legend: m rows of A and C, n columns of C, k the summed dimension. A row-major. Panels are
// [ceil(n/16)][k][16] with the columns past n set to zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

class ThreadPool;

enum class PackedType : uint8_t { kF32, kBF16, kE4M3, kI8 };

inline constexpr int64_t kPanelCols = 16;    // columns of one panel
inline constexpr int64_t kScaleBlock = 128;  // k (and for E4M3 also n) covered by one scale
inline constexpr int64_t kGradChunk = 256;   // rows that a weight gradient sums in one accumulator

// A packed operand; does not own its memory. `data` is 64-byte aligned. `scales` points behind the
// panels: E4M3 [ceil(n/16)][ceil(k/128)], holding 256 * scale, with the decoded weight being
// value / 256 (exact); I8 [ceil(n/16)][ceil(k/128)][16]; else null.
struct PackedB {
  PackedType type = PackedType::kF32;
  int64_t n = 0, k = 0;
  const void* data = nullptr;
  const float* scales = nullptr;
};

// Bytes that `dst` of a pack call must hold, scales included; a multiple of 64.
size_t packed_size_bytes(PackedType type, int64_t n, int64_t k);

struct PackParams {
  PackedType type = PackedType::kF32;
  int64_t n = 0, k = 0;
  const void* src = nullptr;      // elements of `type`: float, uint16_t (bf16), uint8_t, int8_t
  int64_t ld = 0;                 // row stride of src in elements
  const float* scales = nullptr;  // E4M3: [ceil(n/128)][ceil(k/128)]; I8: [n][ceil(k/128)]
  void* dst = nullptr;            // = ; 64-byte aligned, packed_size_bytes(type, n, k)
};

// From W[n][k]: for y = x W^T.
PackedB pack_nt(const PackParams& p, ThreadPool& pool);
// From B[k][n] (kF32 and kBF16 only): for dx = dy W, where B is W as stored.
PackedB pack_nn(const PackParams& p, ThreadPool& pool);

// Symmetric int8 with one scale per row and 128 k: scale = max|w| / 127, code = rint(w / scale)
// within
// +-127. Writes codes[n][k] and scales[n][ceil(k/128)], ready for pack_nt.
void quantize_i8(const float* w, int64_t ld, int64_t n, int64_t k, int8_t* codes, float* scales,
                 ThreadPool& pool);

struct GemmParams {
  const float* a = nullptr;  // [m][k], row stride lda
  int64_t lda = 0;
  const int32_t* a_rows = nullptr;  // when set, row i of A is a + a_rows[i] * lda
  PackedB b;
  float* c = nullptr;  // [m][n], row stride ldc; must not overlap A or B
  int64_t ldc = 0;
  int64_t m = 0;
  bool add = false;  // C += instead of C =
};
void gemm(const GemmParams& p, ThreadPool& pool);

// Rows offsets[e] .. offsets[e+1] of (gathered) A and of C use b[e]. All b[e] have the same k.
// Same bits as one gemm call per group; threads share tiles, not groups.
struct GroupedGemmParams {
  const float* a = nullptr;
  int64_t lda = 0;
  const int32_t* a_rows = nullptr;   // indexed by the row of C
  const PackedB* b = nullptr;        // [groups]
  const int32_t* offsets = nullptr;  // [groups + 1], ascending
  int64_t groups = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  bool add = false;
};
void gemm_grouped(const GroupedGemmParams& p, ThreadPool& pool);

// dW[n][k] = (or += with `add`) sum over i of dy[i][n] * x[i][k]. The rows, counted from row 0 of
// the call, form chunks of kGradChunk; each chunk is one accumulator from 0 with ascending fused
// multiply-add, and the chunks are added to dW in ascending order. Bits do not depend on threads.
struct WeightGradParams {
  const float* dy = nullptr;  // [m][n], row stride ldy
  int64_t ldy = 0;
  const float* x = nullptr;  // [m][k], row stride ldx
  int64_t ldx = 0;
  const int32_t* x_rows = nullptr;  // when set, row i of x is x + x_rows[i] * ldx
  float* dw = nullptr;              // [n][k], row stride ldw
  int64_t ldw = 0;
  int64_t m = 0, n = 0, k = 0;
  bool add = false;
};
void gemm_weight_grad(const WeightGradParams& p, ThreadPool& pool);

// dw[e] from the rows offsets[e] .. offsets[e+1] of dy and (gathered) x; an empty group's dw[e] is
// set to zero, or left alone with `add`. Chunks count from the first row of the group.
struct GroupedWeightGradParams {
  const float* dy = nullptr;
  int64_t ldy = 0;
  const float* x = nullptr;
  int64_t ldx = 0;
  const int32_t* x_rows = nullptr;   // indexed by the row of dy
  const int32_t* offsets = nullptr;  // [groups + 1], ascending
  int64_t groups = 0;
  float* const* dw = nullptr;  // [groups]
  int64_t ldw = 0;
  int64_t n = 0, k = 0;
  bool add = false;
};
void gemm_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool);

}  // namespace fathom
