#include "fathom/kernels/cpu/simd/attention_bf16.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_bf16.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX3

constexpr int64_t kTile = 16 * 32;   // numbers of a tile
constexpr int64_t kPairs = 17 * 32;  // of one of a block's pairs: a line more, so that sets differ

// ---- parts --------------------------------------------------------------------------------------

// The three parts of 32 numbers.
HWY_INLINE void split(__m512 x, __m512 y, __m512i (&part)[3]) {
  const __m512i top = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u));
  const __m512i uppers =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    const __m512i a = _mm512_castps_si512(x), b = _mm512_castps_si512(y);
    part[i] = _mm512_permutex2var_epi16(a, uppers, b);
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(a, top)));
    y = _mm512_sub_ps(y, _mm512_castsi512_ps(_mm512_and_si512(b, top)));
  }
}

// 16 x 16 numbers the other way round.
HWY_INLINE void turn(__m512i (&x)[16]) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  __m512i y[16];
  const auto mix = [&](const __m512i* from, __m512i* to) HWY_ATTR {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      to[2 * i] = _mm512_permutex2var_epi32(from[i], low, from[i + 8]);
      to[2 * i + 1] = _mm512_permutex2var_epi32(from[i], high, from[i + 8]);
    }
  };
  mix(x, y), mix(y, x), mix(x, y), mix(y, x);
}

// The first n lanes of 16; n is clamped to 0 .. 16.
HWY_INLINE __mmask16 lanes16(int64_t n) { return static_cast<__mmask16>(low_bits(n)); }
HWY_INLINE __mmask32 lanes32(int64_t n) { return static_cast<__mmask32>(low_bits(n)); }

// Tiles [cols / 32][3][16 pairs][16 rows][2].
void split_queries(const float* q, int64_t ld, int64_t rows, int64_t width, uint16_t* parts) {
  for (int64_t at = 0; at < width; at += kHalfSpan, parts += 3 * kTile) {
    __m512i lines[3][16];
    const __mmask16 first = lanes16(width - at), second = lanes16(width - at - 16);
    for (int64_t r = 0; r < 16; ++r) {
      __m512i part[3] = {};
      const float* x = q + r * ld + at;
      if (r < rows)
        split(_mm512_maskz_loadu_ps(first, x), _mm512_maskz_loadu_ps(second, x + 16), part);
      for (int i = 0; i < 3; ++i) lines[i][r] = part[i];
    }
    for (int i = 0; i < 3; ++i) {
      turn(lines[i]);
      for (int64_t r = 0; r < 16; ++r) _mm512_storeu_si512(parts + i * kTile + r * 32, lines[i][r]);
    }
  }
}

// ---- keys ---------------------------------------------------------------------------------------

bool one_behind_another(const void* const* key, int64_t n) {
  const auto at = [&](int64_t i) { return static_cast<const char*>(key[i]); };
  for (int64_t i = 2; i < n; ++i)
    if (at(i) - at(i - 1) != at(1) - at(0)) return false;
  return true;
}

// Besides the rows, pairs [cols / 16][2][17][16][2]: line k of tile (t, h) holds 16 columns of keys
// 32 h + 2 k and the next, side by side. Tiles 2 i and 2 i + 1 share 32 columns, by turns four to
// each.
void load_keys(const void* const* key, int64_t n, int64_t width, int64_t C, HalfKeys* keys) {
  static constexpr uint16_t kNone[32] = {};
  const int64_t cols = half_cols(width), sums = half_cols(C);
  const bool in_place = n == kBlock && cols == width && one_behind_another(key, n);
  keys->size = n;
  keys->rows = in_place ? static_cast<const uint16_t*>(key[0]) : keys->copy;
  keys->ld = in_place ? static_cast<const uint16_t*>(key[1]) - keys->rows : cols;
  for (int64_t r = 0; r < half_cols(n); r += 2) {
    const auto* a = static_cast<const uint16_t*>(r < n ? key[r] : kNone);
    const auto* b = static_cast<const uint16_t*>(r + 1 < n ? key[r + 1] : kNone);
    const int64_t step_a = r < n ? 1 : 0, step_b = r + 1 < n ? 1 : 0;
    uint16_t* copy = keys->copy + r * cols;
    uint16_t* pairs = keys->pairs + r / 32 * kPairs + r % 32 * 16;
    for (int64_t c = 0; c < cols; c += 32) {
      const __mmask32 lanes = lanes32(width - c);
      const __m512i x = _mm512_maskz_loadu_epi16(lanes, a + c * step_a);
      const __m512i y = _mm512_maskz_loadu_epi16(lanes, b + c * step_b);
      if (!in_place) {
        _mm512_storeu_si512(copy + c, x);
        _mm512_storeu_si512(copy + cols + c, y);
      }
      if (c >= sums) continue;
      _mm512_storeu_si512(pairs + c / 8 * kPairs, _mm512_unpacklo_epi16(x, y));
      _mm512_storeu_si512(pairs + (c / 8 + 2) * kPairs, _mm512_unpackhi_epi16(x, y));
    }
  }
}

// ---- products -----------------------------------------------------------------------------------

// Tiles 0 .. 3 are sums. One operand's three parts are tiles 4 .. 6, what they meet is tile 7.
HWY_INLINE void load_parts(const uint16_t* parts, int64_t apart, int64_t line) {
  asm volatile(
      "tileloadd (%0,%3,1), %%tmm4\n\t"
      "tileloadd (%1,%3,1), %%tmm5\n\t"
      "tileloadd (%2,%3,1), %%tmm6"
      :
      : "r"(parts), "r"(parts + apart), "r"(parts + 2 * apart), "r"(line)
      : "memory");
}
// sum t += keys * parts of queries
template <int t>
HWY_INLINE void add_scores(const uint16_t* keys, int64_t line) {
  asm volatile(
      "tileloadd (%1,%2,1), %%tmm7\n\t"
      "tdpbf16ps %%tmm4, %%tmm7, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm5, %%tmm7, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm6, %%tmm7, %%tmm%c0"
      :
      : "i"(t), "r"(keys), "r"(line)
      : "memory");
}
// sum t += parts of probabilities * pairs
template <int t>
HWY_INLINE void add_latents(const uint16_t* pairs) {
  asm volatile(
      "tileloadd (%1,%2,1), %%tmm7\n\t"
      "tdpbf16ps %%tmm7, %%tmm4, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm7, %%tmm5, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm%c0"
      :
      : "i"(t), "r"(pairs), "r"(int64_t{64})
      : "memory");
}
template <int t>
HWY_INLINE void clear_sum() {
  asm volatile("tilezero %%tmm%c0" : : "i"(t));
}
template <int t>
HWY_INLINE void load_sum(const float* from, int64_t line) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(t), "r"(from), "r"(line) : "memory");
}
template <int t>
HWY_INLINE void store_sum(float* to, int64_t line) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(t), "r"(to), "r"(line) : "memory");
}

// Calls f<0>() .. f<kCount - 1>().
template <int kCount, class F>
HWY_INLINE void each(F f) {
  [&]<int... t>(std::integer_sequence<int, t...>) { (f(std::integral_constant<int, t>()), ...); }
  (std::make_integer_sequence<int, kCount>());
}

// sums[64][16] of the first 16 * kCount keys
template <int kCount>
void score_tiles(const uint16_t* parts, const uint16_t* rows, int64_t ld, int64_t width,
                 float* sums) {
  each<kCount>([](auto t) { clear_sum<t>(); });
  for (int64_t c = 0; c < width; c += 32, parts += 3 * kTile) {
    load_parts(parts, kTile, 64);
    each<kCount>([&](auto t) { add_scores<t>(rows + t * 16 * ld + c, 2 * ld); });
  }
  each<kCount>([&](auto t) { store_sum<t>(sums + t * 256, 64); });
}

void score(const uint16_t* parts, const HalfKeys& keys, int64_t width, int64_t rows, float* s) {
  HWY_ALIGN float sums[kBlock * 16];
  const AmxTiles tiles;
  constexpr decltype(&score_tiles<1>) kOf[] = {&score_tiles<1>, &score_tiles<2>, &score_tiles<3>,
                                               &score_tiles<4>};
  kOf[(keys.size - 1) / 16](parts, keys.rows, keys.ld, width, sums);
  for (int64_t k = 0; k < keys.size; k += 16) {
    __m512i x[16];
    for (int64_t i = 0; i < 16; ++i) x[i] = _mm512_load_si512(sums + (k + i) * 16);
    turn(x);
    for (int64_t r = 0; r < 16; ++r)
      if (r < rows) _mm512_storeu_si512(s + r * kBlock + k, x[r]);
  }
}

// z[rows][16 * kCount]
template <int kCount>
void weigh_tiles(const uint16_t* parts, const uint16_t* pairs, int64_t keys, bool first, float* z,
                 int64_t line) {
  if (first)
    each<kCount>([](auto t) { clear_sum<t>(); });
  else
    each<kCount>([&](auto t) { load_sum<t>(z + t * 16, line); });
  for (int64_t k = 0; k < keys; k += 32) {
    load_parts(parts + k, kHalfRows * kBlock, 2 * kBlock);
    each<kCount>([&](auto t) { add_latents<t>(pairs + (2 * t + k / 32) * kPairs); });
  }
  each<kCount>([&](auto t) { store_sum<t>(z + t * 16, line); });
}

void weigh(const float* p, int64_t begin, int64_t rows, const HalfKeys& keys, int64_t C, bool first,
           float* z, int64_t ld) {
  HWY_ALIGN uint16_t parts[3][kHalfRows * kBlock];
  for (int64_t i = 0; i < rows * kBlock; i += 32) {
    __m512i part[3] = {};
    if (i >= begin * kBlock) split(_mm512_loadu_ps(p + i), _mm512_loadu_ps(p + i + 16), part);
    for (int j = 0; j < 3; ++j) _mm512_store_si512(parts[j] + i, part[j]);
  }
  AmxShapes shapes;  // a row costs time
  std::fill_n(shapes.rows, 7, static_cast<uint8_t>(rows));
  const AmxTiles tiles(shapes);
  const int64_t cols = half_cols(C), line = 4 * ld;
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64)
    weigh_tiles<4>(parts[0], keys.pairs + c / 8 * kPairs, keys.size, first, z + c, line);
  if (c < cols)
    weigh_tiles<2>(parts[0], keys.pairs + c / 8 * kPairs, keys.size, first, z + c, line);
}

void in_order(float* z, int64_t cols) {
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (float* end = z + cols; z < end; z += 32) {
    const __m512 a = _mm512_loadu_ps(z), b = _mm512_loadu_ps(z + 16);
    _mm512_storeu_ps(z, _mm512_permutex2var_ps(a, low, b));
    _mm512_storeu_ps(z + 16, _mm512_permutex2var_ps(a, high, b));
  }
}

const AttentionBf16* table() {
  static constexpr AttentionBf16 kTable = {&split_queries, &load_keys, &score, &weigh, &in_order};
  return amx_bf16() ? &kTable : nullptr;
}
#else
const AttentionBf16* table() { return nullptr; }
#endif

}  // namespace

const AttentionBf16* make_attention_bf16() { return table(); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_bf16);

const AttentionBf16* attention_bf16() { return HWY_DYNAMIC_DISPATCH(make_attention_bf16)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
