#include "fathom/kernels/cpu/simd/attention_codes.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_codes.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#define FATHOM_X86_INT 1
#else
#define FATHOM_X86_INT 0
#endif

using V = hn::Vec<D16>;
using VI = hn::Vec<DI16>;

constexpr float kTopCode = 32512;  // 127 * 256: both its bytes fit

// ---- coding -------------------------------------------------------------------------------------

struct Range {
  float scale, inverse;  // inverse 0: all codes are 0
};

// Of numbers whose largest size is `bits` as an f32: as integers, sizes order like numbers and NaN
// is above all.
HWY_INLINE Range range_of(int32_t bits, float top_code) {
  const float most = std::bit_cast<float>(bits);
  if (bits >= 0x7F800000) return {std::numeric_limits<float>::quiet_NaN(), 0};
  if (most < 1e-30f) return {0, 0};
  return {most / top_code, top_code / most};
}

HWY_INLINE VI size_bits(V x) { return hn::BitCast(DI16(), hn::Abs(x)); }
HWY_INLINE int32_t largest(VI x) { return hn::GetLane(hn::MaxOfLanes(DI16(), x)); }

// Calls store(i, codes) for 128 numbers, those from n on being 0.
template <class Store>
HWY_INLINE float code_numbers(const float* x, int64_t n, float top_code, Store store) {
  HWY_ALIGN float padded[kCodedSpan];
  if (n < kCodedSpan) {
    std::fill(std::copy_n(x, n, padded), padded + kCodedSpan, 0.0f);
    x = padded;
  }
  VI top = hn::Zero(DI16());
  for (int64_t i = 0; i < kCodedSpan; i += kLanesOf16)
    top = hn::Max(top, size_bits(hn::LoadU(D16(), x + i)));
  const Range range = range_of(largest(top), top_code);
  const auto inverse = hn::Set(D16(), range.inverse);
  for (int64_t i = 0; i < kCodedSpan; i += kLanesOf16) {
    const VI code = hn::NearestInt(hn::Mul(hn::LoadU(D16(), x + i), inverse));
    store(i, range.inverse == 0 ? hn::Zero(DI16()) : code);
  }
  return range.scale;
}

float code_span(const float* x, int64_t n, int8_t* codes) {
  const hn::Rebind<int8_t, D16> d8;
  const hn::Rebind<int16_t, D16> d16;
  HWY_ALIGN int8_t all[kCodedSpan];
  const float scale = code_numbers(x, n, 127, [&](int64_t i, VI code) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, code)), d8, all + i);
  });
  std::copy_n(all, n, codes);
  return scale;
}

// One span of a row in codes of 16 bits.
HWY_INLINE float code_wide(const float* x, int64_t n, int16_t* codes) {
  const hn::Rebind<int16_t, D16> d16;
  return code_numbers(x, n, kTopCode, [&](int64_t i, VI code) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(d16, code), d16, codes + i);
  });
}

// The probabilities of 64 keys times their scales, in codes; returns the scale of these.
HWY_INLINE float code_weights(const float* p, const float* scales, int16_t* codes) {
  const hn::Rebind<int16_t, D16> d16;
  HWY_ALIGN float w[kBlock];
  VI top = hn::Zero(DI16());
  for (int64_t i = 0; i < kBlock; i += kLanesOf16) {
    const V share = hn::LoadU(D16(), p + i);
    // A key that is not seen adds nothing, whatever its scale.
    const V x = hn::IfThenZeroElse(hn::Eq(share, hn::Zero(D16())),
                                   hn::Mul(share, hn::LoadU(D16(), scales + i)));
    top = hn::Max(top, size_bits(x));
    hn::Store(x, D16(), w + i);
  }
  const Range range = range_of(largest(top), kTopCode);
  const auto inverse = hn::Set(D16(), range.inverse);
  for (int64_t i = 0; i < kBlock; i += kLanesOf16) {
    const VI code = hn::NearestInt(hn::Mul(hn::Load(D16(), w + i), inverse));
    hn::StoreU(hn::DemoteTo(d16, range.inverse == 0 ? hn::Zero(DI16()) : code), d16, codes + i);
  }
  return range.scale;
}

// ---- keys ---------------------------------------------------------------------------------------

void load_keys(const void* const* key, int64_t n, int64_t C, KeyFeed* feed, CodedKeys* keys) {
  const auto size = static_cast<size_t>(C);
  const int64_t spans = keys->cols / kCodedSpan;
  for (int64_t r = 0; r < n; ++r) {
    feed->ask(2);
    const auto* row = static_cast<const char*>(key[r]);
    int8_t* to = keys->codes + r * keys->cols;
    std::memcpy(to, row, size);
    std::fill(to + C, to + keys->cols, int8_t{0});
    for (int64_t b = 0; b < spans; ++b)
      std::memcpy(keys->scales + b * kBlock + r, row + coded_scales_at(C) + 4 * b, sizeof(float));
  }
  std::fill(keys->codes + n * keys->cols, keys->codes + kBlock * keys->cols, int8_t{0});
  for (int64_t b = 0; b < spans; ++b)
    std::fill(keys->scales + b * kBlock + n, keys->scales + (b + 1) * kBlock, 0.0f);
}

// ---- products of vectors
// --------------------------------------------------------------------------

void code_queries(const float* q, int64_t ld, int64_t rows, int64_t C, std::byte* codes,
                  float* scales) {
  auto* to = reinterpret_cast<int16_t*>(codes);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t at = 0; at < C; at += kCodedSpan)
      scales[at / kCodedSpan * kCodedRows + r] =
          code_wide(q + r * ld + at, std::min(kCodedSpan, C - at), to + r * coded_cols(C) + at);
}

#if FATHOM_X86_INT
// a + sums of the products of two neighbouring i16.
HWY_INLINE VI add_pairs(VI a, VI x, VI y) {
#if HWY_TARGET == HWY_AVX3
  return hn::Add(a, VI{_mm512_madd_epi16(x.raw, y.raw)});
#else
  return hn::Add(a, VI{_mm256_madd_epi16(x.raw, y.raw)});
#endif
}
#endif

HWY_INLINE int32_t dot_span(const int16_t* a, const int16_t* b) {
  VI sum = hn::Zero(DI16());
#if FATHOM_X86_INT
  for (int64_t i = 0; i < kCodedSpan; i += 2 * kLanesOf16)
    sum = add_pairs(sum, hn::LoadU(DI16(), reinterpret_cast<const int32_t*>(a + i)),
                    hn::LoadU(DI16(), reinterpret_cast<const int32_t*>(b + i)));
#else
  const hn::Rebind<int16_t, D16> d16;
  for (int64_t i = 0; i < kCodedSpan; i += kLanesOf16)
    sum = hn::Add(sum, hn::Mul(hn::PromoteTo(DI16(), hn::LoadU(d16, a + i)),
                               hn::PromoteTo(DI16(), hn::LoadU(d16, b + i))));
#endif
  return hn::GetLane(hn::SumOfLanes(DI16(), sum));
}

void score(const std::byte* codes, const float* scales, const CodedKeys& keys, KeyFeed* feed,
           float* s) {
  const auto* q = reinterpret_cast<const int16_t*>(codes);
  const hn::Rebind<int8_t, D16> d8;
  const hn::Rebind<int16_t, D16> d16;
  HWY_ALIGN int16_t wide[kCodedSpan];
  for (int64_t k = 0; k < kBlock; ++k) {
    feed->ask(4);
    float sum[kCodedRows] = {};
    for (int64_t at = 0; at < keys.cols; at += kCodedSpan) {
      const int8_t* key = keys.codes + k * keys.cols + at;
      for (int64_t i = 0; i < kCodedSpan; i += kLanesOf16)
        hn::StoreU(hn::PromoteTo(d16, hn::LoadU(d8, key + i)), d16, wide + i);
      const int64_t b = at / kCodedSpan;
      for (int64_t r = 0; r < kCodedRows; ++r)
        sum[r] = std::fma(static_cast<float>(dot_span(wide, q + r * keys.cols + at)),
                          scales[b * kCodedRows + r] * keys.scales[b * kBlock + k], sum[r]);
    }
    for (int64_t r = 0; r < kCodedRows; ++r) s[r * kBlock + k] += sum[r];
  }
}

// sums[r][lane] += weights of two keys times their latents in a vector of columns
HWY_INLINE void add_two(const int8_t* first, const int8_t* second, const int16_t* weights,
                        VI (&sums)[kCodedRows]) {
  const hn::Rebind<int8_t, D16> d8;
  const VI a = hn::PromoteTo(DI16(), hn::LoadU(d8, first));
  const VI b = hn::PromoteTo(DI16(), hn::LoadU(d8, second));
#if FATHOM_X86_INT
  const VI both = hn::Or(hn::And(a, hn::Set(DI16(), 0xFFFF)), hn::ShiftLeft<16>(b));
#endif
#pragma GCC unroll 8
  for (int r = 0; r < kCodedRows; ++r) {
#if FATHOM_X86_INT
    int32_t pair;
    std::memcpy(&pair, weights + r * kBlock, sizeof pair);
    sums[r] = add_pairs(sums[r], both, hn::Set(DI16(), pair));
#else
    const int16_t* w = weights + r * kBlock;
    sums[r] = hn::Add(
        sums[r], hn::Add(hn::Mul(a, hn::Set(DI16(), w[0])), hn::Mul(b, hn::Set(DI16(), w[1]))));
#endif
  }
}

HWY_INLINE void add_sums(VI sums, float scale, bool first, float* z) {
  const V before = first ? hn::Zero(D16()) : hn::LoadU(D16(), z);
  hn::StoreU(fused_vec(hn::ConvertTo(D16(), sums), hn::Set(D16(), scale), before), D16(), z);
}

void weigh(const float* p, int64_t begin, int64_t rows, const CodedKeys& keys, bool first,
           KeyFeed* feed, float* z, int64_t ld) {
  HWY_ALIGN int16_t weights[kCodedRows * kBlock] = {};
  float scale[kCodedRows] = {};
  for (int64_t at = 0; at < keys.cols; at += kCodedSpan) {
    for (int64_t r = begin; r < rows; ++r)
      scale[r] = code_weights(p + r * kBlock, keys.scales + at / kCodedSpan * kBlock,
                              weights + r * kBlock);
    for (int64_t c = at; c < at + kCodedSpan; c += kLanesOf16) {
      VI sums[kCodedRows];
      for (VI& v : sums) v = hn::Zero(DI16());
      feed->ask(8);
      for (int64_t k = 0; k < kBlock; k += 2) {
        const int8_t* row = keys.codes + k * keys.cols + c;
        add_two(row, row + keys.cols, weights + k, sums);
      }
      for (int64_t r = begin; r < rows; ++r) add_sums(sums[r], scale[r], first, z + r * ld + c);
    }
  }
}

void in_order(float*, int64_t) {}

// ---- the matrix unit ----------------------------------------------------------------------------

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
void code_queries_amx(const float* q, int64_t ld, int64_t rows, int64_t C, std::byte* codes,
                      float* scales) {
  auto* to = reinterpret_cast<int8_t*>(codes);
  std::fill_n(to, coded_query_bytes(C), int8_t{0});
  std::fill_n(scales, coded_cols(C) / kCodedSpan * kCodedRows, 0.0f);
  HWY_ALIGN int16_t wide[kCodedSpan];
  HWY_ALIGN int8_t upper[kCodedSpan], lower[kCodedSpan];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t at = 0; at < C; at += kCodedSpan) {
      scales[at / kCodedSpan * kCodedRows + r] =
          code_wide(q + r * ld + at, std::min(kCodedSpan, C - at), wide);
      split_bytes(wide, kCodedSpan, upper, lower);
      for (int64_t i = 0; i < kCodedSpan; i += 4) {
        int8_t* four = to + (at + i) * 16 + r * 4;
        std::memcpy(four, upper + i, 4);
        std::memcpy(four + 4 * kCodedRows, lower + i, 4);
      }
    }
}

// Besides the rows, quads [cols / 64][4][16][64]: line (j, k) of a span of 64 columns holds the
// columns 16 i + 4 j + (0 .. 3), i = 0 .. 3, of keys 4 k .. 4 k + 3, four keys side by side.
void load_keys_amx(const void* const* key, int64_t n, int64_t C, KeyFeed* feed, CodedKeys* keys) {
  load_keys(key, n, C, feed, keys);
  for (int64_t c = 0; c < keys->cols; c += 64)
    for (int64_t k = 0; k < kBlock; k += 4) {
      feed->ask(1);
      const int8_t* row = keys->codes + k * keys->cols + c;
      const auto load = [&](int64_t r)
                            HWY_ATTR { return _mm512_loadu_si512(row + r * keys->cols); };
      const __m512i a = load(0), b = load(1), d = load(2), e = load(3);
      const __m512i p = _mm512_unpacklo_epi8(a, b), q = _mm512_unpackhi_epi8(a, b);
      const __m512i r = _mm512_unpacklo_epi8(d, e), s = _mm512_unpackhi_epi8(d, e);
      int8_t* to = keys->quads + c * kBlock + k * 16;
      _mm512_store_si512(to, _mm512_unpacklo_epi16(p, r));
      _mm512_store_si512(to + 1024, _mm512_unpackhi_epi16(p, r));
      _mm512_store_si512(to + 2048, _mm512_unpacklo_epi16(q, s));
      _mm512_store_si512(to + 3072, _mm512_unpackhi_epi16(q, s));
    }
}

// 8 sums from the upper and the lower bytes.
HWY_INLINE __m256 join(const int32_t* sums) {
  const __m256i upper = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums));
  const __m256i lower = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums + 8));
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(upper, 8), lower));
}

// s[8][64] += 16 keys x 8 rows that stand the other way round
HWY_INLINE void add_turned(const float* sums, float* s) {
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
  for (int r = 0; r < 8; ++r)
    _mm512_storeu_ps(s + r * kBlock, _mm512_add_ps(_mm512_loadu_ps(s + r * kBlock), x[r]));
}

void score_amx(const std::byte* codes, const float* scales, const CodedKeys& keys, KeyFeed* feed,
               float* s) {
  HWY_ALIGN int32_t dots[kBlock * 16];
  HWY_ALIGN float sums[kBlock * kCodedRows];
  const AmxTiles tiles;
  for (int64_t at = 0; at < keys.cols; at += kCodedSpan) {
    tiles.multiply_64x16(keys.codes + at, keys.cols, codes + at * 16);
    tiles.store_64x16(dots);
    const float* key_scale = keys.scales + at / kCodedSpan * kBlock;
    const __m256 scale = _mm256_loadu_ps(scales + at / kCodedSpan * kCodedRows);
    for (int64_t k = 0; k < kBlock; ++k) {
      if (k % 4 != 0) feed->ask(1);
      float* sum = sums + k * kCodedRows;
      const __m256 before = at == 0 ? _mm256_setzero_ps() : _mm256_load_ps(sum);
      const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(key_scale[k]));
      _mm256_store_ps(sum, _mm256_fmadd_ps(join(dots + 16 * k), factor, before));
    }
  }
  for (int64_t k = 0; k < kBlock; k += 16) add_turned(sums + k * kCodedRows, s + k);
}

void weigh_amx(const float* p, int64_t begin, int64_t rows, const CodedKeys& keys, bool first,
               KeyFeed* feed, float* z, int64_t ld) {
  HWY_ALIGN int16_t codes[kBlock];
  HWY_ALIGN int8_t weights[16 * kBlock] = {};
  HWY_ALIGN int32_t dots[16 * kBlock];
  float scale[kCodedRows] = {};
  const AmxTiles tiles;
  for (int64_t c = 0; c < keys.cols; c += kBlock) {
    for (int64_t r = begin; r < rows && c % kCodedSpan == 0; ++r) {
      feed->ask(3);
      scale[r] = code_weights(p + r * kBlock, keys.scales + c / kCodedSpan * kBlock, codes);
      split_bytes(codes, kBlock, weights + r * kBlock, weights + (kCodedRows + r) * kBlock);
    }
    tiles.multiply_16x64_one(weights, keys.quads + c * kBlock);
    tiles.store_16x64(dots);
    for (int64_t r = begin; r < rows; ++r) {
      feed->ask(2);
      for (int64_t i = 0; i < kBlock; i += 16) {
        const VI upper = hn::Load(DI16(), dots + r * kBlock + i);
        const VI lower = hn::Load(DI16(), dots + (kCodedRows + r) * kBlock + i);
        add_sums(hn::Add(hn::ShiftLeft<8>(upper), lower), scale[r], first, z + r * ld + c + i);
      }
    }
  }
}

void in_order_amx(float* z, int64_t cols) {
  HWY_ALIGN float span[64];
  for (float* end = z + cols; z < end; z += 64) {
    std::copy_n(z, 64, span);
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t i = 0; i < 4; ++i) std::copy_n(span + 16 * j + 4 * i, 4, z + 16 * i + 4 * j);
  }
}
#endif

std::vector<const AttentionCodes*> make_tables() {
  std::vector<const AttentionCodes*> out;
#if HWY_TARGET == HWY_AVX3
  static constexpr AttentionCodes kAmx = {&code_span, &code_queries_amx, &load_keys_amx,
                                          &score_amx, &weigh_amx,        &in_order_amx};
  if (amx_int8()) out.push_back(&kAmx);
#endif
  static constexpr AttentionCodes kVectors = {&code_span, &code_queries, &load_keys,
                                              &score,     &weigh,        &in_order};
  out.push_back(&kVectors);
  return out;
}

#undef FATHOM_X86_INT

}  // namespace

std::vector<const AttentionCodes*> make_attention_codes_tables() { return make_tables(); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_codes_tables);

std::vector<const AttentionCodes*> attention_codes_tables() {
  return HWY_DYNAMIC_DISPATCH(make_attention_codes_tables)();
}

const AttentionCodes& attention_codes() { return *attention_codes_tables().front(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
