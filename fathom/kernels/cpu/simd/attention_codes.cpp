#include "fathom/kernels/cpu/simd/attention_codes.h"

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_codes.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/attention_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

using namespace codes;

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#define FATHOM_X86_INT 1
#else
#define FATHOM_X86_INT 0
#endif

// kVnni: four products of 16 bits and their sum at once. kPairs: the sum apart. kPlain: one by one.
enum class Dot { kVnni, kPairs, kPlain };

float code_span(const float* x, int64_t n, int8_t* codes) {
  const hn::Rebind<int8_t, D16> d8;
  const hn::Rebind<int16_t, D16> d16;
  HWY_ALIGN int8_t all[kSpan];
  const float scale = code_numbers(x, n, 127, [&](int64_t i, VI code) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, code)), d8, all + i);
  });
  std::copy_n(all, n, codes);
  return scale;
}

// Codes [cols / 4][8][4], of each four the second and the third exchanged (see Wide).
void load_queries(const float* q, int64_t ld, int64_t rows, int64_t C, int64_t R,
                  std::byte* group) {
  auto* to = reinterpret_cast<int16_t*>(group);
  code_group(q, ld, rows, C, R, group, [&](int64_t r, int64_t c, const int16_t* codes) HWY_ATTR {
    for (int64_t i = 0; i < kSpan; i += 4) {
      const int16_t four[4] = {codes[i], codes[i + 2], codes[i + 1], codes[i + 3]};
      std::memcpy(to + (c + i) * kRows + r * 4, four, sizeof four);
    }
  });
}

void load_block(KeyChunk* keys, int64_t block) { load_keys(*keys, block, false); }

// Four signed bytes of each lane as numbers of 16 bits: first and third, second and fourth.
#if FATHOM_X86_INT
using D16x2 = hn::Repartition<int16_t, D16>;
struct Wide {
  hn::Vec<D16x2> part[2];
};
HWY_INLINE Wide widen(VI bytes) {
  const auto x = hn::BitCast(D16x2(), bytes);
  return {{hn::ShiftRight<8>(hn::ShiftLeft<8>(x)), hn::ShiftRight<8>(x)}};
}
#else
struct Wide {
  VI part[4];
};
HWY_INLINE Wide widen(VI x) {
  return {{hn::ShiftRight<24>(hn::ShiftLeft<24>(x)), hn::ShiftRight<24>(hn::ShiftLeft<8>(x)),
           hn::ShiftRight<24>(hn::ShiftLeft<16>(x)), hn::ShiftRight<24>(x)}};
}
#endif

// Sums of kRowsAt rows and kVecs vectors += numbers * four[row * apart + (0 .. 3)], in Wide's
// order.
template <Dot kDot, int kRowsAt, int kVecs>
HWY_INLINE void add_four(const Wide (&x)[kVecs], const int16_t* four, int64_t apart,
                         VI (&sum)[kRowsAt][kVecs]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRowsAt; ++r) {
#if FATHOM_X86_INT
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      int32_t two;
      std::memcpy(&two, four + r * apart + 2 * half, sizeof two);
      VI y = hn::Set(DI16(), two);
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        VI& s = sum[r][v];
        const auto& number = x[v].part[half];
#if HWY_TARGET == HWY_AVX3
        if constexpr (kDot == Dot::kVnni)
          asm("vpdpwssd %2, %1, %0" : "+v"(s.raw) : "v"(number.raw), "v"(y.raw));
        else
          s = hn::Add(s, VI{_mm512_madd_epi16(number.raw, y.raw)});
#else
        if constexpr (kDot == Dot::kVnni)
          asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(s.raw) : "x"(number.raw), "x"(y.raw));
        else
          s = hn::Add(s, VI{_mm256_madd_epi16(number.raw, y.raw)});
#endif
      }
    }
#else
    for (int i = 0; i < 4; ++i)
      for (int v = 0; v < kVecs; ++v)
        sum[r][v] = hn::Add(sum[r][v], hn::Mul(x[v].part[i], hn::Set(DI16(), four[r * apart + i])));
#endif
  }
}

template <Dot kDot, int kRowsAt>
void score_rows(const std::byte* group, const KeyChunk& keys, int64_t block, int64_t rows,
                float* s) {
  const int64_t n = std::min(keys.size - block * kBlock, kBlock);
  const int64_t cols = cols_of(keys.C), line = line_of(keys.C, keys.R);
  const Group at(keys.C, keys.R);
  const auto* codes = reinterpret_cast<const int16_t*>(group);
  const auto* scales = reinterpret_cast<const float*>(group + at.scales);
  const auto* rotary = reinterpret_cast<const float*>(group + at.rotary);
  const auto* panels = reinterpret_cast<const uint32_t*>(keys.block + kBlock * line);
  const int64_t apart = line / 4 * kLanesOf16;  // from one vector's keys to the next
  for (int64_t from = 0; from < n; from += kVecs * kLanesOf16) {
    const uint32_t* panel = panels + from * line / 4;
    V total[kRowsAt][kVecs];
    for (auto& row : total)
      for (V& x : row) x = hn::Zero(D16());
    for (int64_t b = 0; b < cols / kSpan; ++b) {
      VI sum[kRowsAt][kVecs];
      FATHOM_SUMS sum[r][v] = hn::Zero(DI16());
      for (int64_t c = b * kSpan; c < (b + 1) * kSpan; c += 4) {
        if (keys.in_place) keys.feed->ask(keys.asked);
        Wide x[kVecs];
        for (int v = 0; v < kVecs; ++v)
          x[v] =
              widen(hn::BitCast(DI16(), hn::Load(U32(), panel + v * apart + c / 4 * kLanesOf16)));
        add_four<kDot>(x, codes + c * kRows, 4, sum);
      }
      const float* key_scale = scales_of(keys, b) + block * kBlock + from;
      FATHOM_SUMS {
        const V scale = hn::Mul(hn::Set(D16(), scales[b * kRows + r]),
                                hn::LoadU(D16(), key_scale + v * kLanesOf16));
        total[r][v] = fused_vec(hn::ConvertTo(D16(), sum[r][v]), scale, total[r][v]);
      }
    }
    V sum[kRowsAt][kVecs];
    score_rotary(rotary, panel + cols / 4 * kLanesOf16, apart, keys.R, sum);
    FATHOM_SUMS {
      const V x = hn::Add(sum[r][v], total[r][v]);
      if (r < rows) hn::StoreU(x, D16(), s + r * kBlock + from + v * kLanesOf16);
    }
  }
}

// One vector or two of the columns of a line of quads, for some rows.
template <Dot kDot, int kRowsAt>
HWY_INLINE void weigh_columns(const int16_t* weights, const float* scale, int64_t rows,
                              const KeyChunk& keys, int64_t n, const int8_t* quads, float* z,
                              int64_t ld) {
  VI sum[kRowsAt][kVecs];
  FATHOM_SUMS sum[r][v] = hn::Zero(DI16());
  for (int64_t k = 0; k < n; k += 4) {
    if (keys.in_place) keys.feed->ask(keys.asked);
    Wide x[kVecs];
    for (int v = 0; v < kVecs; ++v)
      x[v] = widen(hn::Load(DI16(), reinterpret_cast<const int32_t*>(quads + k * 16 + v * kQuads)));
    add_four<kDot>(x, weights + k, kChunk, sum);
  }
  FATHOM_SUMS {
    const V x = hn::Mul(hn::ConvertTo(D16(), sum[r][v]), hn::Set(D16(), scale[r]));
    if (r < rows) hn::StoreU(x, D16(), z + r * ld + v * 16);
  }
}

template <Dot kDot, int kRowsAt>
void weigh_rows(const float* p, int64_t ld_block, int64_t rows, const KeyChunk& keys, float* z,
                int64_t ld) {
  HWY_ALIGN int16_t weights[kRowsAt * kChunk] = {};
  float scale[kRowsAt] = {};
  const int64_t n = round_up(keys.size, kBlock);
  const auto* quads = reinterpret_cast<const int8_t*>(keys.whole);
  for (int64_t c = 0; c < cols_of(keys.C); c += 64) {
    for (int64_t r = 0; r < rows && c % kSpan == 0; ++r)
      scale[r] = code_weights(p + r * kBlock, ld_block, scales_of(keys, c / kSpan), n,
                              weights + r * kChunk);
    for (int64_t i = 0; i < 64; i += kLanesOf16 * kVecs)  // of these columns, as they stand
      weigh_columns<kDot, kRowsAt>(weights, scale, rows, keys, n,
                                   quads + (c + i / 16 * 16) * kChunk + i % 16 * 4, z + c + i, ld);
  }
}

template <Dot kDot>
void score(const std::byte* group, const KeyChunk& keys, int64_t block, int64_t rows, float* s) {
  (rows > kRows / 2 ? &score_rows<kDot, kRows> : &score_rows<kDot, kRows / 2>)(group, keys, block,
                                                                               rows, s);
}
template <Dot kDot>
void weigh(const float* p, int64_t ld_block, int64_t rows, const KeyChunk& keys, float* z,
           int64_t ld) {
  (rows > kRows / 2 ? &weigh_rows<kDot, kRows> : &weigh_rows<kDot, kRows / 2>)(p, ld_block, rows,
                                                                               keys, z, ld);
}

std::vector<const ChunkProducts*> make_ways() {
  constexpr ChunkProducts kShared = {.rows = kRows,
                                     .group_bytes = &group_bytes,
                                     .block_bytes = &block_bytes,
                                     .whole_bytes = &whole_bytes,
                                     .z_cols = &cols_of,
                                     .load_queries = &load_queries,
                                     .load_block = &load_block,
                                     .in_order = &in_order};
  const auto with = [&](auto score_way, auto weigh_way) {
    ChunkProducts way = kShared;
    way.score = score_way;
    way.weigh = weigh_way;
    return way;
  };
  std::vector<const ChunkProducts*> out;
#if FATHOM_X86_INT
  static const ChunkProducts vnni = with(&score<Dot::kVnni>, &weigh<Dot::kVnni>);
  static const ChunkProducts pairs = with(&score<Dot::kPairs>, &weigh<Dot::kPairs>);
  if (HWY_TARGET == HWY_AVX3 ? __builtin_cpu_supports("avx512vnni") : avx_vnni())
    out.push_back(&vnni);
  out.push_back(&pairs);
#else
  static const ChunkProducts plain = with(&score<Dot::kPlain>, &weigh<Dot::kPlain>);
  out.push_back(&plain);
#endif
  return out;
}

#undef FATHOM_X86_INT

}  // namespace

const std::vector<const ChunkProducts*>& codes_ways() {
  static const std::vector<const ChunkProducts*> all = make_ways();
  return all;
}
float code_latents_here(const float* x, int64_t n, int8_t* to) { return code_span(x, n, to); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(codes_ways);
HWY_EXPORT(code_latents_here);

std::vector<const ChunkProducts*> attention_codes_ways() {
  std::vector<const ChunkProducts*> ways = HWY_DYNAMIC_DISPATCH(codes_ways)();
  if (const ChunkProducts* unit = attention_codes_unit()) ways.insert(ways.begin(), unit);
  return ways;
}

const ChunkProducts& attention_codes() {
  const ChunkProducts* unit = attention_codes_unit();
  return unit ? *unit : *HWY_DYNAMIC_DISPATCH(codes_ways)().front();
}

float code_latents(const float* x, int64_t n, int8_t* to) {
  return HWY_DYNAMIC_DISPATCH(code_latents_here)(x, n, to);
}

}  // namespace fathom::simd
#endif  // HWY_ONCE
