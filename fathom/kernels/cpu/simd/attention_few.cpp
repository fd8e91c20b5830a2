#include "fathom/kernels/cpu/simd/attention_few.h"

#include <algorithm>
#include <bit>

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_few.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/turn-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
using V = hn::Vec<D16>;

// Vectors of sums that stay in registers: of scores; of weighed columns, which are quicker with
// more.
constexpr int kSums = kLanesOf16 == 16 ? 16 : 8;
constexpr int kColumnSums = kLanesOf16 == 16 ? 24 : 12;

// Lanes are keys: a number of a query serves kPanels vectors of them. 64 bytes of each row are
// turned while those before them are multiplied.
template <class T, int kRows, int kPanels>
void score_heads(const float* packed, int64_t width, const void* const* key, int64_t n,
                 KeyFeed* feed, float* s, int64_t ld) {
  constexpr int kPer = 4 / sizeof(T), kChunk = 16 * kPer;  // numbers of a row in a line, in 16
  constexpr int kKeys = kPanels * kLanesOf16;
  constexpr int kPieces = 4 * kPanels, kLines = 16 / kPieces;
  constexpr int kAsked = kLines * HWY_MAX(kKeys / 32, 1);  // for a piece: half of its lines
  constexpr int64_t kSize = sizeof(T);
  for (int64_t from = 0; from < n; from += kKeys) {
    const char* row[kKeys];
    for (int64_t i = 0; i < kKeys; ++i)
      row[i] = static_cast<const char*>(key[HWY_MIN(from + i, n - 1)]);
    V sum[kRows][kPanels];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sum[r][p] = hn::Zero(D16());
    HWY_ALIGN uint32_t lines[2][kPanels][16 * kLanesOf16];
    for (int i = 0; i < kPieces; ++i)
      turn(row + i / 4 * kLanesOf16, i % 4 * 16, lines[0][i / 4] + i % 4 * 4 * kLanesOf16);
    int now = 0;
    for (int64_t k = 0; k < width; k += kChunk, now ^= 1)
      for (int i = 0; i < kPieces; ++i) {
        if (k + kChunk < width)
          turn(row + i / 4 * kLanesOf16, (k + kChunk) * kSize + i % 4 * 16,
               lines[now ^ 1][i / 4] + i % 4 * 4 * kLanesOf16);
        feed->ask(kAsked);
#pragma GCC unroll 4
        for (int line = 0; line < kLines; ++line) {
          const int64_t l = i * kLines + line;
#pragma GCC unroll 2
          for (int half = 0; half < kPer; ++half) {
            V x[kPanels];
#pragma GCC unroll 4
            for (int p = 0; p < kPanels; ++p) {
              auto bits = hn::Load(U32(), lines[now][p] + l * kLanesOf16);
              if constexpr (kPer == 2)
                bits = half == 0 ? hn::ShiftLeft<16>(bits)
                                 : hn::And(bits, hn::Set(U32(), 0xFFFF0000u));
              x[p] = hn::BitCast(D16(), bits);
            }
            const float* q = packed + (k + l * kPer + half) * 16;
#pragma GCC unroll 16
            for (int r = 0; r < kRows; ++r) {
              V number = hn::Set(D16(), q[r]);
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
              if constexpr (kPanels > 1) asm("" : "+v"(number.raw));  // loaded once
#endif
#pragma GCC unroll 4
              for (int p = 0; p < kPanels; ++p) sum[r][p] = fused_vec(number, x[p], sum[r][p]);
            }
          }
        }
      }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p)
        hn::StoreU(sum[r][p], D16(), s + r * ld + from + p * kLanesOf16);
  }
}

template <class T, int kRows = 8>
void score_type(const float* packed, int64_t heads, int64_t width, const void* const* key,
                int64_t n, KeyFeed* feed, float* s, int64_t ld) {
  constexpr int kPanels = kSums >= 4 * kRows ? 4 : kSums >= 2 * kRows ? 2 : 1;
  if constexpr (kLanesOf16 == 16 && kRows == 8)
    if (heads == 16)  // rows are turned once for all of them
      return score_heads<T, 16, 1>(packed, width, key, n, feed, s, ld);
  const int64_t rest = n % (kPanels * kLanesOf16), last = rest <= kLanesOf16 ? rest : 0;
  for (; heads >= kRows; heads -= kRows, packed += kRows, s += kRows * ld) {
    score_heads<T, kRows, kPanels>(packed, width, key, n - last, feed, s, ld);
    score_heads<T, kRows, 1>(packed, width, key + n - last, last, feed, s + n - last, ld);
  }
  if constexpr (kRows > 1)
    if (heads > 0) score_type<T, kRows - 1>(packed, heads, width, key, n, feed, s, ld);
}

void score(const float* packed, int64_t heads, int64_t width, const void* const* key, DType dtype,
           int64_t n, KeyFeed* feed, float* s, int64_t ld) {
  if (dtype == DType::kF32) return score_type<float>(packed, heads, width, key, n, feed, s, ld);
  score_type<uint16_t>(packed, heads, width, key, n, feed, s, ld);
}

// Two vectors of columns as they lie in memory: f32 side by side, bf16 by turns.
HWY_INLINE void load_columns(const float* p, V* v) {
  v[0] = hn::LoadU(D16(), p);
  v[1] = hn::LoadU(D16(), p + kLanesOf16);
}
HWY_INLINE void load_columns(const uint16_t* p, V* v) {
  const auto bits = hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(p));
  v[0] = hn::BitCast(D16(), hn::ShiftLeft<16>(bits));
  v[1] = hn::BitCast(D16(), hn::And(bits, hn::Set(U32(), 0xFFFF0000u)));
}

template <class T, int kRows, int kPairs>
void weigh_tile(const float* p, const float* alpha, const void* const* key, int64_t n, int64_t col,
                KeyFeed* feed, float* z, int64_t ld) {
  constexpr int kVecs = 2 * kPairs;
  constexpr int64_t kAsked = 4;  // keys that ask together
  V sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i)
      sum[r][i] = alpha ? hn::Mul(hn::LoadU(D16(), z + r * ld + col + i * kLanesOf16),
                                  hn::Set(D16(), alpha[r]))
                        : hn::Zero(D16());
  for (int64_t k = 0; k < n; ++k) {
    if (k % kAsked == 0) feed->ask(kAsked);
    const T* row = static_cast<const T*>(key[k]) + col;
    V v[kVecs];
#pragma GCC unroll 2
    for (int i = 0; i < kPairs; ++i) load_columns(row + i * 2 * kLanesOf16, v + 2 * i);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V weight = hn::Set(D16(), p[r * kBlock + k]);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) sum[r][i] = fused_vec(weight, v[i], sum[r][i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) hn::StoreU(sum[r][i], D16(), z + r * ld + col + i * kLanesOf16);
}

constexpr int kRowsMost = kLanesOf16 == 16 ? 8 : 5;  // heads, with a pair of vectors of columns
constexpr int pairs_of(int rows) { return 4 * rows <= kColumnSums ? 2 : 1; }

template <class T, int kRows, int kPairs = pairs_of(kRows)>
void weigh_rows(const float* p, const float* alpha, const void* const* key, int64_t n, int64_t col,
                int64_t cols, KeyFeed* feed, float* z, int64_t ld) {
  constexpr int64_t kCols = 2 * kPairs * kLanesOf16;
  for (; col + kCols <= cols; col += kCols)
    weigh_tile<T, kRows, kPairs>(p, alpha, key, n, col, feed, z, ld);
  if constexpr (kPairs > 1)
    if (col < cols) weigh_rows<T, kRows, kPairs - 1>(p, alpha, key, n, col, cols, feed, z, ld);
}

template <class T, int kRows = kRowsMost>
void weigh_type(const float* p, const float* alpha, int64_t heads, const void* const* key,
                int64_t n, int64_t cols, KeyFeed* feed, float* z, int64_t ld) {
  for (; heads >= kRows; heads -= kRows, p += kRows * kBlock, z += kRows * ld) {
    weigh_rows<T, kRows>(p, alpha, key, n, 0, cols, feed, z, ld);
    if (alpha) alpha += kRows;
  }
  if constexpr (kRows > 1)
    if (heads > 0) weigh_type<T, kRows - 1>(p, alpha, heads, key, n, cols, feed, z, ld);
}

void weigh(const float* p, const float* alpha, int64_t heads, const void* const* key, DType dtype,
           int64_t n, int64_t cols, KeyFeed* feed, float* z, int64_t ld) {
  if (dtype == DType::kF32) return weigh_type<float>(p, alpha, heads, key, n, cols, feed, z, ld);
  weigh_type<uint16_t>(p, alpha, heads, key, n, cols, feed, z, ld);
}

void in_order(float* z, DType dtype, int64_t cols) {
  if (dtype == DType::kF32) return;
  for (int64_t c = 0; c < cols; c += 2 * kLanesOf16)
    hn::StoreInterleaved2(hn::LoadU(D16(), z + c), hn::LoadU(D16(), z + c + kLanesOf16), D16(),
                          z + c);
}

#endif  // not HWY_SCALAR

}  // namespace

const AttentionFew& make_attention_few() {
#if HWY_TARGET == HWY_SCALAR
  static constexpr AttentionFew kTable{};  // takes no heads
#else
  static constexpr AttentionFew kTable = {.max_heads = 16,
                                          .step = 32,

                                          .score = &score,
                                          .weigh = &weigh,
                                          .in_order = &in_order};
#endif
  return kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_few);

const AttentionFew& attention_few() { return HWY_DYNAMIC_DISPATCH(make_attention_few)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
