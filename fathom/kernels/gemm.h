// Matrix products on panel-packed weights: C = A * B, its per-expert form and the weight gradient.
//
// Row-exact rule. Every output element is one f32 accumulator that starts at 0 and takes k in
// ascending order with fused multiply-add, whatever m, the blocking, the threads or the instruction
// set: bit for bit the loop `for k: acc = fma(a[k], b[k], acc)`. Block-scaled weights (E4M3)
// keep one such accumulator p per block of 128 k, then acc = fma(p, scale, acc) in ascending block
// order. With `add` the finished sum is added once: C = C + acc.
//
// Quantised weights (Q8, Q4) are multiplied in integers. Each row of A is coded per group of 64 k:
// scale sa = max|a| / 127, code = rint(a * (127 / max|a|)); a group below 1e-30 is zero, one that
// is not finite has the scale NaN. With S the exact integer sum of products of codes in a group and
// sw the weight's scale: acc = fma(float(S) * sw, sa, acc), groups ascending.
//
// Split products (GradProducts::kSplit, on a processor with a matrix unit for bf16) are for
// backward passes. Every f32 is the sum of three bf16: hi = its upper 16 bits, mid = those of x -
// hi, lo = those of x - hi - mid. An output is an accumulator from 0; for each 32 k, ascending, it
// adds the six products of parts lo*hi, mid*hi, mid*mid, hi*mid, hi*lo, hi*hi of a and b, in this
// order. Such a product of 32 k is two chains of fused multiply-add from 0, of even and of odd k,
// which are added to each other, then to the accumulator; all with numbers below 2^-126 taken and
// given as 0. So bits depend on the instruction, not on m, the blocking or the threads. What is
// left out is below 2^-21 |a b|; sums round less often than the f32 chain and are nearer to the
// exact value on average (numbers below 2^-102 lose low bits). An operand that is not finite gives
// NaN.
//
// Legend: m rows of A and C, n columns of C, k the summed dimension. A row-major. Panels are
// [ceil(n/16)][k][16] with the columns past n set to zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fathom/kernels/grad_products.h"

namespace fathom {

class ThreadPool;

// kSplit: f32 as three bf16 parts (split_products.h), for adjoints and by pack_nn only.
enum class PackedType : uint8_t { kF32, kBF16, kE4M3, kQ8, kQ4, kSplit };

constexpr bool is_quantized(PackedType t) { return t == PackedType::kQ8 || t == PackedType::kQ4; }

inline constexpr int64_t kPanelCols = 16;    // columns of one panel
inline constexpr int64_t kScaleBlock = 128;  // k (and for E4M3 also n) covered by one scale
inline constexpr int64_t kQuantGroup = 64;   // k covered by one scale of a quantised row
inline constexpr int64_t kGradChunk = 256;   // rows that a weight gradient sums in one accumulator

// A packed operand; does not own its memory. `data` is 64-byte aligned. `scales` points behind the
// panels: E4M3 float [ceil(n/16)][ceil(k/128)], holding 256 * scale, with the decoded weight being
// value / 256 (exact); Q8 and Q4 bf16 [ceil(n/16)][ceil(k/64)][16]; else null. Panels of Q8 are
// bytes [ceil(n/16)][groups][16][16][4], code + 128; of Q4 [ceil(n/16)][groups][8][16][4], where a
// byte holds code + 8 of k (low half) and of k + 32. In both the last index is k modulo 4.
struct PackedB {
  PackedType type = PackedType::kF32;
  int64_t n = 0, k = 0;
  const void* data = nullptr;
  const void* scales = nullptr;
};

// Bytes that `dst` of a pack call must hold, scales included; a multiple of 64.
size_t packed_size_bytes(PackedType type, int64_t n, int64_t k);

struct PackParams {
  PackedType type = PackedType::kF32;
  int64_t n = 0, k = 0;
  // Elements of `type`: float, uint16_t (bf16), uint8_t (e4m3); Q8 and Q4 as quantize_rows writes
  // them. Null: dst holds the panels already.
  const void* src = nullptr;
  int64_t ld = 0;                // row stride of src in elements; Q4: in bytes
  const void* scales = nullptr;  // E4M3: float [ceil(n/128)][ceil(k/128)]; Q8, Q4: bf16
  void* dst = nullptr;           // = ; 64-byte aligned, packed_size_bytes(type, n, k)
};

// From W[n][k]: for y = x W^T.
PackedB pack_nt(const PackParams& p, ThreadPool& pool);
// From B[k][n] (kF32, kBF16, kSplit; the last of float): for dx = dy W, where B is W as stored.
PackedB pack_nn(const PackParams& p, ThreadPool& pool);

// Bytes of one row of codes: Q8 k, Q4 half of it, rounded up.
int64_t quant_row_bytes(PackedType type, int64_t k);

// Codes of W[n][k] with one bf16 scale per row and 64 k, ready for pack_nt. Q8: int8 within +-127,
// the scale rounded up so that nothing is clipped; value = code * scale. Q4: the scale of several
// that leaves the least squared error (it may be negative); value = (code - 8) * scale, two codes a
// byte, even k in the low half.
struct QuantizeParams {
  PackedType type = PackedType::kQ8;
  const float* w = nullptr;
  int64_t ld = 0, n = 0, k = 0;
  uint8_t* codes = nullptr;    // = [n][quant_row_bytes(type, k)]
  uint16_t* scales = nullptr;  // = [n][ceil(k/64)]
};
void quantize_rows(const QuantizeParams& p, ThreadPool& pool);
// Back to w[n][k] with row stride `ld`; the codes and scales of p are read.
void dequantize_rows(const QuantizeParams& p, float* w, ThreadPool& pool);

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

// Products that do not read what another one writes, with the bits of one gemm call each. Those
// with quantised weights share a parallel region, and rows of A that several read are coded once.
void gemm_many(const GemmParams* p, int64_t count, ThreadPool& pool);

// gemm_many() of `first`, then of `then`, whose rows may be results of `first`. Few rows that meet
// quantised weights take one parallel region for both.
void gemm_chain(std::span<const GemmParams> first, std::span<const GemmParams> then,
                ThreadPool& pool);

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
// the call, form chunks of kGradChunk; each chunk is one accumulator from 0 (with ascending fused
// multiply-add, or in split products), and the chunks are added to dW in ascending order. Bits do
// not depend on threads. kSplit needs Kernels::has_split_products() of
// cpu_simd().
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
  GradProducts products = GradProducts::kF32;
};
void gemm_weight_grad(const WeightGradParams& p, ThreadPool& pool);

// dw[e] from the rows offsets[e] .. offsets[e+1] of (gathered) dy and x; an empty group's dw[e] is
// set to zero, or left alone with `add`. Chunks count from the first row of the group.
struct GroupedWeightGradParams {
  const float* dy = nullptr;
  int64_t ldy = 0;
  const int32_t* dy_rows = nullptr;  // when set, row i of dy is dy + dy_rows[i] * ldy
  const float* x = nullptr;
  int64_t ldx = 0;
  const int32_t* x_rows = nullptr;   // likewise, counted over all groups
  const int32_t* offsets = nullptr;  // [groups + 1], ascending
  int64_t groups = 0;
  float* const* dw = nullptr;  // [groups]
  int64_t ldw = 0;
  int64_t n = 0, k = 0;
  bool add = false;
  GradProducts products = GradProducts::kF32;
};
void gemm_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool);

}  // namespace fathom
