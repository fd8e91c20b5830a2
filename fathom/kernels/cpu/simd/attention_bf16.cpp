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

#include "fathom/kernels/cpu/simd/split_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX3

constexpr int64_t kKeys = simd::kBlock;  // of a block
constexpr int64_t kHalfRows = 16;        // query rows of a group
constexpr int64_t kHalfSpan = 32;        // numbers or keys of one product
constexpr int64_t kTile = kSplitPart;    // numbers of a tile
constexpr int64_t kAsked = 24;           // keys ahead that are asked for
int64_t half_cols(int64_t n) { return round_up(n, kHalfSpan); }

// Numbers of a tile of pairs and of 64 columns of a chunk's (a line more, so that neighbours start
// in other cache sets).
constexpr int64_t kHalfTile = 17 * 32;
constexpr int64_t kHalfQuad = kChunk / 32 * 4 * kHalfTile + 64;

// Of a group's queries in parts, of a block's copy, of a chunk's pairs.
int64_t group_bytes(int64_t C, int64_t R) { return 2 * kHalfRows * 3 * half_cols(C + R); }
int64_t block_bytes(int64_t C, int64_t R) { return 2 * kKeys * half_cols(C + R); }
int64_t whole_bytes(int64_t C) { return 2 * ((C + 63) / 64 * kHalfQuad); }

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

// Tiles [cols / 32][3][16 pairs][16 rows][2].
void load_queries(const float* q, int64_t ld, int64_t rows, int64_t C, int64_t R,
                  std::byte* group) {
  const int64_t width = C + R;
  auto* parts = reinterpret_cast<uint16_t*>(group);
  const uint16_t* end = parts + group_bytes(C, R) / 2;
  for (int64_t at = 0; at < width; at += kHalfSpan)
    for (int64_t r = 0; r < kHalfRows; ++r) {
      const int64_t left = r < rows ? width - at : 0;
      const float* x = left > 0 ? q + r * ld + at : q;
      store_row(load_some(x, left), left > 16 ? load_some(x + 16, left - 16) : hn::Zero(D()),
                parts + at * 3 * kHalfRows + r * kHalfSpan);
    }
  for (; parts < end; parts += kTile) {
    __m512i x[16];
    for (int64_t i = 0; i < 16; ++i) x[i] = _mm512_load_si512(parts + i * 32);
    turn(x);
    for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(parts + i * 32, x[i]);
  }
}

// ---- keys ---------------------------------------------------------------------------------------

bool one_behind_another(const void* const* key, int64_t n) {
  const auto at = [&](int64_t i) { return static_cast<const char*>(key[i]); };
  for (int64_t i = 2; i < n; ++i)
    if (at(i) - at(i - 1) != at(1) - at(0)) return false;
  return true;
}

// Line k of a tile of pairs holds 16 columns of keys 2 k and 2 k + 1, side by side. Two tiles share
// 32 columns, by turns four to each. What lies behind the last key or number is 0.
void load_block(KeyChunk* keys, int64_t block) {
  if (keys->in_place) return;
  const int64_t width = keys->C + keys->R;
  auto* const copies = reinterpret_cast<uint16_t*>(keys->block);
  const int64_t from = block * kKeys, n = std::min(keys->size - from, kKeys);
  const int64_t cols = half_cols(width), sums = half_cols(keys->C);
  const void* const* key = keys->key + from;
  const bool direct = n == kKeys && cols == width && one_behind_another(key, n);
  keys->rows = direct ? static_cast<const uint16_t*>(key[0]) : copies;
  keys->ld = direct ? static_cast<const uint16_t*>(key[1]) - keys->rows : cols;
  for (int64_t r = 0; r < half_cols(n); r += 2) {
    const auto* a = static_cast<const uint16_t*>(key[std::min(r, n - 1)]);
    const auto* b = static_cast<const uint16_t*>(key[std::min(r + 1, n - 1)]);
    for (int64_t i = from + r + kAsked; i < std::min(from + r + kAsked + 2, keys->size); ++i)
      for (int64_t c = 0; c < width; c += 32)
        __builtin_prefetch(static_cast<const uint16_t*>(keys->key[i]) + c, 0, 2);
    uint16_t* copy = copies + r * cols;
    uint16_t* pairs =
        reinterpret_cast<uint16_t*>(keys->whole) + (from + r) / 32 * 4 * kHalfTile + r % 32 * 16;
    for (int64_t c = 0; c < cols; c += 32) {
      const auto lanes = [&](bool there) {
        return static_cast<__mmask32>(low_bits(there ? width - c : 0));
      };
      const __m512i x = _mm512_maskz_loadu_epi16(lanes(r < n), a + c);
      const __m512i y = _mm512_maskz_loadu_epi16(lanes(r + 1 < n), b + c);
      if (!direct) {
        _mm512_store_si512(copy + c, x);
        _mm512_store_si512(copy + cols + c, y);
      }
      if (c >= sums) continue;
      uint16_t* to = pairs + c / 64 * kHalfQuad + c % 64 / 16 * kHalfTile;
      _mm512_store_si512(to, _mm512_unpacklo_epi16(x, y));
      _mm512_store_si512(to + kHalfTile, _mm512_unpackhi_epi16(x, y));
    }
  }
}

// ---- products -----------------------------------------------------------------------------------

// Tiles 0 .. 3 are sums. One operand's three parts are tiles 4 .. 6, what they meet is tile 7.
HWY_INLINE void load_parts(const uint16_t* parts) {
  asm volatile(
      "tileloadd (%0,%1,1), %%tmm4\n\t"
      "tileloadd 1024(%0,%1,1), %%tmm5\n\t"
      "tileloadd 2048(%0,%1,1), %%tmm6"
      :
      : "r"(parts), "r"(int64_t{64})
      : "memory");
}
// sum t += keys * parts of queries
template <int t>
HWY_INLINE void add_scores(const uint16_t* keys, int64_t line) {
  asm volatile(
      "tileloadd (%1,%2,1), %%tmm7\n\t"
      "tdpbf16ps %%tmm6, %%tmm7, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm5, %%tmm7, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm4, %%tmm7, %%tmm%c0"
      :
      : "i"(t), "r"(keys), "r"(line)
      : "memory");
}
// sum t += parts of probabilities * pairs
template <int t>
HWY_INLINE void add_latents(const uint16_t* pairs) {
  asm volatile(
      "tileloadd (%1,%2,1), %%tmm7\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm7, %%tmm5, %%tmm%c0\n\t"
      "tdpbf16ps %%tmm7, %%tmm4, %%tmm%c0"
      :
      : "i"(t), "r"(pairs), "r"(int64_t{64})
      : "memory");
}
template <int t>
HWY_INLINE void clear_sum() {
  asm volatile("tilezero %%tmm%c0" : : "i"(t));
}
template <int t>
HWY_INLINE void store_sum(float* to, int64_t line) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(t), "r"(to), "r"(line) : "memory");
}

// Calls f(0) .. f(kCount - 1).
template <int kCount, class F>
HWY_INLINE void each(F f) {
  [&]<int... t>(std::integer_sequence<int, t...>) { (f(std::integral_constant<int, t>()), ...); }
  (std::make_integer_sequence<int, kCount>());
}

// sums[64][16] of the first 16 * kCount keys of a block
template <int kCount>
void score_tiles(const uint16_t* parts, const KeyChunk& keys, float* sums) {
  each<kCount>([](auto t) { clear_sum<t>(); });
  for (int64_t c = 0; c < keys.C + keys.R; c += 32, parts += 3 * kTile) {
    load_parts(parts);
    each<kCount>([&](auto t) { add_scores<t>(keys.rows + t * 16 * keys.ld + c, 2 * keys.ld); });
  }
  each<kCount>([&](auto t) { store_sum<t>(sums + t * 256, 64); });
}

using Tile = uint16_t[16][32];

// The same of keys in place: while one column of tiles is multiplied, the next one is copied.
template <int kCount>
void score_in_place(const uint16_t* parts, const KeyChunk& keys, const void* const* key, int64_t n,
                    float* sums) {
  const uint16_t* row[16 * kCount];
  for (int64_t i = 0; i < 16 * kCount; ++i)
    row[i] = static_cast<const uint16_t*>(key[std::min(i, n - 1)]);
  HWY_ALIGN Tile copy[2][kCount];
  const auto take = [&](int t, int64_t c, Tile& to) HWY_ATTR {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to[i], _mm512_loadu_si512(row[16 * t + i] + c));
  };
  each<kCount>([&](auto t) {
    clear_sum<t>();
    take(t, 0, copy[0][t]);
  });
  int now = 0;
  for (int64_t c = 0; c < keys.C + keys.R; c += 32, parts += 3 * kTile, now ^= 1) {
    load_parts(parts);
    const int64_t next = std::min(c + 32, keys.C + keys.R - 32);
    each<kCount>([&](auto t) {
      add_scores<t>(copy[now][t][0], 64);
      take(t, next, copy[now ^ 1][t]);
    });
  }
  each<kCount>([&](auto t) { store_sum<t>(sums + t * 256, 64); });
}

template <int kCount>
void score_keys(const uint16_t* parts, const KeyChunk& keys, int64_t from, int64_t n, float* sums) {
  if (keys.in_place)
    score_in_place<kCount>(parts, keys, keys.key + from, n, sums);
  else
    score_tiles<kCount>(parts, keys, sums);
}

void score(const std::byte* group, const KeyChunk& keys, int64_t block, int64_t rows, float* s) {
  const auto* parts = reinterpret_cast<const uint16_t*>(group);
  HWY_ALIGN float sums[kKeys * 16];
  const int64_t from = block * kKeys, n = std::min(keys.size - from, kKeys);
  const AmxTiles tiles;
  constexpr decltype(&score_keys<1>) kOf[] = {&score_keys<1>, &score_keys<2>, &score_keys<3>,
                                              &score_keys<4>};
  kOf[(n - 1) / 16](parts, keys, from, n, sums);
  for (int64_t k = 0; k < n; k += 16) {
    __m512i x[16];
    for (int64_t i = 0; i < 16; ++i) x[i] = _mm512_load_si512(sums + (k + i) * 16);
    turn(x);
    for (int64_t r = 0; r < 16; ++r)
      if (r < rows) _mm512_storeu_si512(s + r * kKeys + k, x[r]);
  }
}

// z[rows][32 * kSpans]
template <int kSpans>
void weigh_columns(const uint16_t* parts, const uint16_t* pairs, int64_t keys, float* z,
                   int64_t line) {
  each<2 * kSpans>([](auto t) { clear_sum<t>(); });
  for (int64_t k = 0; k < keys; k += 32, parts += 3 * kTile, pairs += 4 * kHalfTile) {
    load_parts(parts);
    each<2 * kSpans>([&](auto t) { add_latents<t>(pairs + t * kHalfTile); });
  }
  each<2 * kSpans>([&](auto t) { store_sum<t>(z + t * 16, line); });
}

// The same of columns c .. of keys in place: while pairs of some keys are multiplied, those of the
// next ones are made.
template <int kSpans>
void weigh_in_place(const uint16_t* parts, const KeyChunk& keys, int64_t c, float* z,
                    int64_t line) {
  HWY_ALIGN Tile pairs[2][2 * kSpans];
  const auto row = [&](int64_t k) {
    return static_cast<const uint16_t*>(keys.key[std::min(k, keys.size - 1)]) + c;
  };
  const auto make = [&](int64_t k, int from, int to, Tile* out) HWY_ATTR {
    for (int i = from; i < to; ++i) {
      const uint16_t *a = row(k + 2 * i), *b = row(k + 2 * i + 1);
#pragma GCC unroll 2
      for (int j = 0; j < kSpans; ++j) {
        const __m512i x = _mm512_loadu_si512(a + 32 * j), y = _mm512_loadu_si512(b + 32 * j);
        _mm512_store_si512(out[2 * j][i], _mm512_unpacklo_epi16(x, y));
        _mm512_store_si512(out[2 * j + 1][i], _mm512_unpackhi_epi16(x, y));
      }
    }
  };
  constexpr int kPart = 8 / kSpans;  // lines of the next tiles for each of these
  each<2 * kSpans>([](auto t) { clear_sum<t>(); });
  make(0, 0, 16, pairs[0]);
  int now = 0;
  for (int64_t k = 0; k < keys.size; k += 32, parts += 3 * kTile, now ^= 1) {
    load_parts(parts);
    each<2 * kSpans>([&](auto t) {
      add_latents<t>(pairs[now][t][0]);
      if (k + 32 < keys.size) make(k + 32, kPart * t, kPart * (t + 1), pairs[now ^ 1]);
    });
  }
  each<2 * kSpans>([&](auto t) { store_sum<t>(z + t * 16, line); });
}

template <int kSpans>
void weigh_span(const uint16_t* parts, const KeyChunk& keys, int64_t c, float* z, int64_t line) {
  if (keys.in_place)
    weigh_in_place<kSpans>(parts, keys, c, z, line);
  else
    weigh_columns<kSpans>(parts, reinterpret_cast<const uint16_t*>(keys.whole) + c / 64 * kHalfQuad,
                          keys.size, z, line);
}

void weigh(const float* p, int64_t ld_block, int64_t rows, const KeyChunk& keys, float* z,
           int64_t ld) {
  HWY_ALIGN uint16_t parts[kChunk / 32 * 3 * kTile];
  for (int64_t k = 0; k < keys.size; k += 32)
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = p + k / kKeys * ld_block + r * kKeys + k % kKeys;
      store_row(hn::LoadU(D(), x), hn::LoadU(D(), x + 16), parts + k * 3 * kHalfRows + r * 32);
    }
  AmxShapes shapes;  // a row costs time
  std::fill_n(shapes.rows, 7, static_cast<uint8_t>(rows));
  const AmxTiles tiles(shapes);
  const int64_t cols = half_cols(keys.C);
  for (int64_t c = 0; c < cols; c += 64)
    (cols - c > 32 ? &weigh_span<2> : &weigh_span<1>)(parts, keys, c, z + c, 4 * ld);
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

const ChunkProducts* table() {
  static constexpr ChunkProducts kTable = {.rows = kHalfRows,
                                           .group_bytes = &group_bytes,
                                           .block_bytes = &block_bytes,
                                           .whole_bytes = &whole_bytes,
                                           .z_cols = &half_cols,
                                           .load_queries = &load_queries,
                                           .load_block = &load_block,
                                           .score = &score,
                                           .weigh = &weigh,
                                           .in_order = &in_order};
  return amx_bf16() ? &kTable : nullptr;
}
#else
const ChunkProducts* table() { return nullptr; }
#endif

}  // namespace

const ChunkProducts* make_attention_bf16() { return table(); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_bf16);

const ChunkProducts* attention_bf16() { return HWY_DYNAMIC_DISPATCH(make_attention_bf16)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
