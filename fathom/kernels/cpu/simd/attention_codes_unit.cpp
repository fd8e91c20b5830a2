#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/attention_codes.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_codes_unit.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/attention_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

using namespace codes;

#if HWY_TARGET == HWY_AVX3
// A number of 16 bits is 256 * upper + lower, both signed bytes: columns 0 .. 7 of a tile are the
// upper bytes of 8 rows, 8 .. 15 the lower ones.
// Bytes of n codes, a multiple of 32.
HWY_INLINE void split_bytes(const int16_t* codes, int64_t n, int8_t* upper, int8_t* lower) {
  for (int64_t i = 0; i < n; i += 32) {
    const __m512i x = _mm512_load_si512(codes + i);
    const __m512i up = _mm512_srai_epi16(_mm512_add_epi16(x, _mm512_set1_epi16(128)), 8);
    _mm256_store_si256(reinterpret_cast<__m256i*>(upper + i), _mm512_cvtepi16_epi8(up));
    _mm256_store_si256(reinterpret_cast<__m256i*>(lower + i), _mm512_cvtepi16_epi8(x));
  }
}

// Tiles [cols / 64][16][16 columns][4 numbers].
void load_queries(const float* q, int64_t ld, int64_t rows, int64_t C, int64_t R,
                  std::byte* group) {
  auto* to = reinterpret_cast<int8_t*>(group);
  HWY_ALIGN int8_t upper[kSpan], lower[kSpan];
  code_group(q, ld, rows, C, R, group, [&](int64_t r, int64_t c, const int16_t* codes) HWY_ATTR {
    split_bytes(codes, kSpan, upper, lower);
    for (int64_t i = 0; i < kSpan; i += 4) {
      int8_t* four = to + (c + i) * 16 + r * 4;
      std::memcpy(four, upper + i, 4);
      std::memcpy(four + 4 * kRows, lower + i, 4);
    }
  });
}

void load_block(KeyChunk* keys, int64_t block) { load_keys(*keys, block, true); }

// 8 sums from the upper and the lower bytes.
HWY_INLINE __m256 join(const int32_t* sums) {
  const __m256i upper = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums));
  const __m256i lower = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums + 8));
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(upper, 8), lower));
}

// s[row][64] += 16 keys x 8 rows that stand the other way round
HWY_INLINE void add_turned(const float* sums, int64_t rows, float* s) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  __m512 x[8], y[8];
  for (int i = 0; i < 8; ++i) x[i] = _mm512_load_ps(sums + 16 * i);
  const auto mix = [&](const __m512* from, __m512* to) HWY_ATTR {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = _mm512_permutex2var_ps(from[i], low, from[i + 4]);
      to[2 * i + 1] = _mm512_permutex2var_ps(from[i], high, from[i + 4]);
    }
  };
  mix(x, y), mix(y, x), mix(x, y), mix(y, x);
  for (int r = 0; r < 8 && r < rows; ++r)
    _mm512_storeu_ps(s + r * kBlock, _mm512_add_ps(_mm512_loadu_ps(s + r * kBlock), x[r]));
}

void score(const std::byte* group, const KeyChunk& keys, int64_t block, int64_t rows, float* s) {
  const int64_t n = std::min(keys.size - block * kBlock, kBlock);
  const int64_t cols = cols_of(keys.C), line = line_of(keys.C, keys.R);
  const Group at(keys.C, keys.R);
  const auto* codes = reinterpret_cast<const int8_t*>(keys.block);
  const auto* scales = reinterpret_cast<const float*>(group + at.scales);
  const auto* panels = reinterpret_cast<const uint32_t*>(keys.block + kBlock * line);
  for (int64_t k = 0; k < n; k += kVecs * kLanesOf16) {
    constexpr int kRowsAt = kRows;
    V sum[kRowsAt][kVecs];
    score_rotary(reinterpret_cast<const float*>(group + at.rotary),
                 panels + k * line / 4 + cols / 4 * kLanesOf16, line / 4 * kLanesOf16, keys.R, sum);
    FATHOM_SUMS if (r < rows) hn::StoreU(sum[r][v], D16(), s + r * kBlock + k + v * kLanesOf16);
  }
  HWY_ALIGN int32_t dots[kBlock * 16];
  HWY_ALIGN float sums[kBlock * kRows];
  const AmxTiles tiles;
  for (int64_t c = 0; c < cols; c += kSpan) {
    tiles.multiply_64x16(codes + c, line, group + c * 16);
    tiles.store_64x16(dots);
    const float* key_scale = scales_of(keys, c / kSpan) + block * kBlock;
    const __m256 scale = _mm256_loadu_ps(scales + c / kSpan * kRows);
    for (int64_t k = 0; k < kBlock; ++k) {
      if (keys.in_place && k % 4 != 0) keys.feed->ask(1);
      float* sum = sums + k * kRows;
      const __m256 before = c == 0 ? _mm256_setzero_ps() : _mm256_load_ps(sum);
      const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(key_scale[k]));
      _mm256_store_ps(sum, _mm256_fmadd_ps(join(dots + 16 * k), factor, before));
    }
  }
  for (int64_t k = 0; k < n; k += 16) add_turned(sums + k * kRows, rows, s + k);
}

void weigh(const float* p, int64_t ld_block, int64_t rows, const KeyChunk& keys, float* z,
           int64_t ld) {
  HWY_ALIGN int16_t codes[kChunk];
  HWY_ALIGN int8_t weights[2 * kRows * kChunk] = {};
  HWY_ALIGN int32_t dots[16 * kBlock];
  float scale[kRows] = {};
  const int64_t cols = cols_of(keys.C), n = round_up(keys.size, kBlock);
  const AmxTiles tiles;
  for (int64_t c = 0; c < cols; c += 64) {
    for (int64_t r = 0; r < rows && c % kSpan == 0; ++r) {
      if (keys.in_place) keys.feed->ask(8);
      scale[r] = code_weights(p + r * kBlock, ld_block, scales_of(keys, c / kSpan), n, codes);
      split_bytes(codes, n, weights + r * kChunk, weights + (kRows + r) * kChunk);
    }
    tiles.multiply_16x64(weights, kChunk, reinterpret_cast<const int8_t*>(keys.whole) + c * kChunk,
                         kQuads, n / kBlock);
    tiles.store_16x64(dots);
    for (int64_t r = 0; r < rows; ++r) {
      if (keys.in_place) keys.feed->ask(6);
      for (int64_t i = 0; i < 64; i += 16) {
        const VI upper = hn::Load(DI16(), dots + r * 64 + i);
        const VI lower = hn::Load(DI16(), dots + (kRows + r) * 64 + i);
        const V sum = hn::ConvertTo(D16(), hn::Add(hn::ShiftLeft<8>(upper), lower));
        hn::StoreU(hn::Mul(sum, hn::Set(D16(), scale[r])), D16(), z + r * ld + c + i);
      }
    }
  }
}

const ChunkProducts* unit() {
  static constexpr ChunkProducts kUnit = {.rows = kRows,
                                          .group_bytes = &group_bytes,
                                          .block_bytes = &block_bytes,
                                          .whole_bytes = &whole_bytes,
                                          .z_cols = &cols_of,
                                          .load_queries = &load_queries,
                                          .load_block = &load_block,
                                          .score = &score,
                                          .weigh = &weigh,
                                          .in_order = &in_order};
  return amx_int8() ? &kUnit : nullptr;
}
#else
const ChunkProducts* unit() { return nullptr; }
#endif

}  // namespace

const ChunkProducts* codes_unit() { return unit(); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(codes_unit);

const ChunkProducts* attention_codes_unit() { return HWY_DYNAMIC_DISPATCH(codes_unit)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
