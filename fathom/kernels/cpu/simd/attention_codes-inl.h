// What the ways of attention_codes.h share: layouts, codes, loading of keys, rotary scores.
// Included once per instruction set, after hwy/foreach_target.h.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/attention_codes.h"
#include "fathom/kernels/cpu/simd/turn-inl.h"

#if defined(FATHOM_ATTENTION_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_ATTENTION_CODES_INL_H_
#undef FATHOM_ATTENTION_CODES_INL_H_
#else
#define FATHOM_ATTENTION_CODES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace codes {

using V = hn::Vec<D16>;
using VI = hn::Vec<DI16>;

constexpr int64_t kRows = 8;       // query rows of a group
constexpr int64_t kSpan = 128;     // numbers with one scale
constexpr float kTopCode = 32512;  // 127 * 256: both its bytes fit

inline int64_t cols_of(int64_t C) { return round_up(C, kSpan); }

// A group of queries: codes, scales [spans][8], rotary numbers [R][8].
struct Group {
  int64_t scales, rotary, bytes;  // where they are
  Group(int64_t C, int64_t R)
      : scales(2 * kRows * cols_of(C)),
        rotary(scales + round_up(cols_of(C) / kSpan * kRows * 4, 64)),
        bytes(rotary + round_up(R, 2) * kRows * 4) {}
};
inline int64_t group_bytes(int64_t C, int64_t R) { return Group(C, R).bytes; }

// A block of keys: rows [64][line] of codes and rotary bf16, both padded with zeros, and panels
// [64 / lanes][line / 4][lanes] of four bytes, where vectors run over keys.
inline int64_t line_of(int64_t C, int64_t R) { return cols_of(C) + round_up(2 * R, 16); }
inline int64_t block_bytes(int64_t C, int64_t R) { return 2 * kBlock * line_of(C, R); }

// What a chunk's sums need: quads [cols / 64][4][64][64] and scales [spans][256]. Line (j, k) of 64
// columns holds the columns 16 i + 4 j + (0 .. 3), i = 0 .. 3, of keys 4 k .. 4 k + 3, four keys
// side by side.
constexpr int64_t kQuads = kChunk * 16;  // bytes from one j to the next
inline int64_t whole_bytes(int64_t C) {
  return kChunk * cols_of(C) + cols_of(C) / kSpan * kChunk * 4;
}
inline float* scales_of(const KeyChunk& keys, int64_t span) {
  return reinterpret_cast<float*>(keys.whole + kChunk * cols_of(keys.C)) + span * kChunk;
}

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
  HWY_ALIGN float padded[kSpan];
  if (n < kSpan) {
    std::fill(std::copy_n(x, n, padded), padded + kSpan, 0.0f);
    x = padded;
  }
  VI top = hn::Zero(DI16());
  for (int64_t i = 0; i < kSpan; i += kLanesOf16)
    top = hn::Max(top, size_bits(hn::LoadU(D16(), x + i)));
  const Range range = range_of(largest(top), top_code);
  const auto inverse = hn::Set(D16(), range.inverse);
  for (int64_t i = 0; i < kSpan; i += kLanesOf16) {
    const VI code = hn::NearestInt(hn::Mul(hn::LoadU(D16(), x + i), inverse));
    store(i, range.inverse == 0 ? hn::Zero(DI16()) : code);
  }
  return range.scale;
}

// One span of a row in codes of 16 bits.
HWY_INLINE float code_wide(const float* x, int64_t n, int16_t* codes) {
  const hn::Rebind<int16_t, D16> d16;
  return code_numbers(x, n, kTopCode, [&](int64_t i, VI code) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(d16, code), d16, codes + i);
  });
}

// The probabilities p[block * ld + key] of n keys times their scales, in codes; returns the scale
// of these.
HWY_INLINE float code_weights(const float* p, int64_t ld, const float* scales, int64_t n,
                              int16_t* codes) {
  const hn::Rebind<int16_t, D16> d16;
  HWY_ALIGN float w[kChunk];
  VI top = hn::Zero(DI16());
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const V share = hn::LoadU(D16(), p + i / kBlock * ld + i % kBlock);
    // A key that is not seen adds nothing, whatever its scale.
    const V x = hn::IfThenZeroElse(hn::Eq(share, hn::Zero(D16())),
                                   hn::Mul(share, hn::LoadU(D16(), scales + i)));
    top = hn::Max(top, size_bits(x));
    hn::Store(x, D16(), w + i);
  }
  const Range range = range_of(largest(top), kTopCode);
  const auto inverse = hn::Set(D16(), range.inverse);
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const VI code = hn::NearestInt(hn::Mul(hn::Load(D16(), w + i), inverse));
    hn::StoreU(hn::DemoteTo(d16, range.inverse == 0 ? hn::Zero(DI16()) : code), d16, codes + i);
  }
  return range.scale;
}

// ---- queries ------------------------------------------------------------------------------------

// A group's scales and rotary numbers; store(row, column, codes) takes each row's spans in codes.
template <class Store>
HWY_INLINE void code_group(const float* q, int64_t ld, int64_t rows, int64_t C, int64_t R,
                           std::byte* group, Store store) {
  const Group at(C, R);
  std::fill_n(group, at.bytes, std::byte{0});
  auto* scales = reinterpret_cast<float*>(group + at.scales);
  auto* rotary = reinterpret_cast<float*>(group + at.rotary);
  HWY_ALIGN int16_t codes[kSpan];
  for (int64_t r = 0; r < rows; ++r, q += ld) {
    for (int64_t c = 0; c < C; c += kSpan) {
      scales[c / kSpan * kRows + r] = code_wide(q + c, std::min(kSpan, C - c), codes);
      store(r, c, codes);
    }
    for (int64_t i = 0; i < R; ++i) rotary[i * kRows + r] = q[C + i];
  }
}

// ---- keys ---------------------------------------------------------------------------------------

// Line k of quads, all four of its j, from 64 columns of four keys. Bytes of a quad are keys a, b,
// c, d.
HWY_INLINE void make_quads(const char* a, const char* b, const char* c, const char* d, int8_t* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 64; ++i) {
    int8_t* quad = to + i % 16 / 4 * kQuads + i / 16 * 16 + i % 4 * 4;
    const char four[4] = {a[i], b[i], c[i], d[i]};
    std::memcpy(quad, four, sizeof four);
  }
#else
  const hn::Repartition<int8_t, D16> d8;
  const hn::Repartition<int16_t, D16> d16;
  for (int64_t i = 0; i < 64; i += 4 * kLanesOf16) {
    const auto load = [&](const char* p) HWY_ATTR {
      return hn::LoadU(d8, reinterpret_cast<const int8_t*>(p) + i);
    };
    const auto low = [&](auto x, auto y)
                         HWY_ATTR { return hn::BitCast(d16, hn::InterleaveLower(d8, x, y)); };
    const auto high = [&](auto x, auto y)
                          HWY_ATTR { return hn::BitCast(d16, hn::InterleaveUpper(d8, x, y)); };
    const auto store = [&](int64_t j, auto x)
                           HWY_ATTR { hn::Store(hn::BitCast(d8, x), d8, to + j * kQuads + i); };
    const auto p = low(load(a), load(b)), q = high(load(a), load(b));
    const auto r = low(load(c), load(d)), s = high(load(c), load(d));
    store(0, hn::InterleaveLower(d16, p, r));
    store(1, hn::InterleaveUpper(d16, p, r));
    store(2, hn::InterleaveLower(d16, q, s));
    store(3, hn::InterleaveUpper(d16, q, s));
  }
#endif
}

// Rows of a block as they stand in KeyChunk's block, those behind the last key being 0.
HWY_INLINE void copy_rows(const KeyChunk& keys, int64_t block, int64_t n) {
  const int64_t cols = cols_of(keys.C), line = line_of(keys.C, keys.R);
  const auto codes = static_cast<size_t>(keys.C), rotary = static_cast<size_t>(2 * keys.R);
  auto* row = reinterpret_cast<int8_t*>(keys.block);
  for (int64_t k = 0; k < n; ++k, row += line) {
    const auto* key = static_cast<const char*>(keys.key[block * kBlock + k]);
    std::memcpy(row, key, codes);
    std::memset(row + codes, 0, static_cast<size_t>(cols) - codes);
    std::memcpy(row + cols, key + coded_rest_at(keys.C), rotary);
    std::memset(row + cols + rotary, 0, static_cast<size_t>(line - cols) - rotary);
  }
  std::memset(row, 0, static_cast<size_t>((kBlock - n) * line));
}

// Whether rows need no copies.
inline bool whole_rows(const KeyChunk& keys) { return keys.C % kSpan == 0 && keys.R % 8 == 0; }

// Where keys first .. first + 15 of a chunk are, the last one in place of those behind it; from
// byte `at` on.
struct Rows16 {
  const char* row[16];
  Rows16(const KeyChunk& keys, int64_t first, int64_t at) {
    for (int64_t i = 0; i < 16; ++i)
      row[i] = static_cast<const char*>(keys.key[std::min(first + i, keys.size - 1)]) + at;
  }
  // The same of copies.
  Rows16(const std::byte* block, int64_t line, int64_t first, int64_t at) {
    for (int64_t i = 0; i < 16; ++i)
      row[i] = reinterpret_cast<const char*>(block) + (first + i) * line + at;
  }
};

// Panels of 16 keys: `bytes` of their rows to lines from `at` on.
HWY_INLINE void turn_rows(const Rows16& rows, int64_t at, int64_t bytes, int64_t line,
                          uint32_t* panel) {
  for (int64_t i = 0; i < 16; i += kLanesOf16)
    for (int64_t c = 0; c < bytes; c += 16)
      turn(rows.row + i, c, panel + i * line / 4 + (at + c) / 4 * kLanesOf16);
}

// Quads of 16 keys and 64 columns. Keys of a quad stand in the order 0, second, third, 3.
HWY_INLINE void quads_of_16(const Rows16& rows, int64_t c, int64_t second, int64_t third,
                            int8_t* to) {
  for (int64_t i = 0; i < 16; i += 4) {
    const char* const* row = rows.row + i;
    make_quads(row[0] + c, row[second] + c, row[third] + c, row[3] + c, to + i * 16);
  }
}

// Scales of a block's keys, 0 behind the last one.
HWY_INLINE void load_scales(const KeyChunk& keys, int64_t block) {
  const int64_t spans = cols_of(keys.C) / kSpan, from = block * kBlock;
  const int64_t n = std::min(keys.size - from, kBlock);
  for (int64_t k = from; k < from + n; ++k)
    for (int64_t b = 0; b < spans; ++b)
      std::memcpy(scales_of(keys, b) + k,
                  static_cast<const char*>(keys.key[k]) + coded_scales_at(keys.C) + 4 * b,
                  sizeof(float));
  for (int64_t b = 0; b < spans; ++b) std::fill_n(scales_of(keys, b) + from + n, kBlock - n, 0.0f);
}

// Copies of a block's rows, then quads and panels from them; the matrix unit needs panels of the
// rotary numbers only.
HWY_INLINE void load_keys(const KeyChunk& keys, int64_t block, bool unit) {
  const int64_t n = std::min(keys.size - block * kBlock, kBlock);
  const int64_t cols = cols_of(keys.C), line = line_of(keys.C, keys.R);
  const bool copied = unit || !whole_rows(keys);
  if (copied) copy_rows(keys, block, n);
  auto* quads = reinterpret_cast<int8_t*>(keys.whole);
  auto* panels = reinterpret_cast<uint32_t*>(keys.block + kBlock * line);
  load_scales(keys, block);
  for (int64_t k = 0; k < kBlock; k += 16) {
    const int64_t key = block * kBlock + k;
    const Rows16 codes = copied ? Rows16(keys.block, line, k, 0) : Rows16(keys, key, 0);
    const Rows16 rotary =
        copied ? Rows16(keys.block, line, k, cols) : Rows16(keys, key, coded_rest_at(cols));
    for (int64_t c = 0; c < cols; c += 64) {
      if (keys.in_place) keys.feed->ask(4);
      quads_of_16(codes, c, unit ? 1 : 2, unit ? 2 : 1, quads + c * kChunk + key * 16);
    }
    if (!unit) turn_rows(codes, 0, cols, line, panels + k * line / 4);
    turn_rows(rotary, cols, line - cols, line, panels + k * line / 4);
  }
}

inline void in_order(float* z, int64_t cols) {
  HWY_ALIGN float span[64];
  for (float* end = z + cols; z < end; z += 64) {
    std::copy_n(z, 64, span);
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t i = 0; i < 4; ++i) std::copy_n(span + 16 * j + 4 * i, 4, z + 16 * i + 4 * j);
  }
}

// ---- rotary scores ------------------------------------------------------------------------------

constexpr int kVecs = kLanesOf16 == 16 ? 2 : 1;  // that stay in registers with eight rows

// For each sum of kRowsAt rows and kVecs vectors: written out, or sums would be kept in memory.
#define FATHOM_SUMS                                         \
  _Pragma("GCC unroll 8") for (int r = 0; r < kRowsAt; ++r) \
      _Pragma("GCC unroll 2") for (int v = 0; v < kVecs; ++v)

// The rotary chains of kVecs vectors of keys.
template <int kRowsAt>
HWY_INLINE void score_rotary(const float* q, const uint32_t* panel, int64_t apart, int64_t R,
                             V (&sum)[kRowsAt][kVecs]) {
  FATHOM_SUMS sum[r][v] = hn::Zero(D16());
  for (int64_t i = 0; i < R; ++i, q += kRows) {
    V x[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      const auto bits = hn::Load(U32(), panel + v * apart + i / 2 * kLanesOf16);
      x[v] = hn::BitCast(
          D16(), i % 2 == 0 ? hn::ShiftLeft<16>(bits) : hn::And(bits, hn::Set(U32(), 0xFFFF0000u)));
    }
    FATHOM_SUMS sum[r][v] = fused_vec(hn::Set(D16(), q[r]), x[v], sum[r][v]);
  }
}

}  // namespace codes
}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif  // FATHOM_ATTENTION_CODES_INL_H_
