// Integer tiles for quantised weights. Codes of weights are unsigned, those of activations signed:
// the operands of VNNI's dot product of four bytes, and of the matrix unit that some processors
// have for many rows (AMX); byte_dots-inl.h has the other ways. All sums are exact, so every way
// gives the same bits.
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/int_tiles.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/int_tiles.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/byte_dots-inl.h"
#include "fathom/kernels/cpu/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

using bytes::Codes;
using bytes::DI;
using bytes::Dot;
using bytes::four_codes;
using bytes::VI;

constexpr int kBlocks = kQuantGroup / 4;  // of four k in a group
constexpr int64_t kAhead = 2048;          // bytes that are asked for early

HWY_INLINE VI low_halves(VI b) { return hn::And(b, hn::Set(DI(), 0x0F0F0F0F)); }
HWY_INLINE VI high_halves(VI b) { return low_halves(hn::ShiftRight<4>(b)); }

// sum[i][j] += products of one group. b: the group's codes in the first panel; panels are b_panel
// bytes apart. a[i]: the group's codes of row i. Asks for what lies `ahead` bytes further.
template <Dot kDot, bool kQ8, int kRows, int kVecs>
HWY_INLINE void add_group(const uint8_t* b, int64_t b_panel, int64_t ahead,
                          const int8_t* const (&a)[kRows], VI (&sum)[kRows][kVecs]) {
  constexpr int kLines = kQ8 ? kBlocks : kBlocks / 2;  // lines of 64 bytes in a panel
  const auto load = [&](int line, int j) HWY_ATTR {
    const uint8_t* p = b + j / kPerPanel * b_panel + line * 64 + j % kPerPanel * 4 * kLanes;
    if (j % kPerPanel == 0) hwy::Prefetch(p + ahead);
    return hn::LoadU(DI(), reinterpret_cast<const int32_t*>(p));
  };
  constexpr int kStep = kVecs <= 2 ? kLines : 2;  // lines that are unrolled
  for (int first = 0; first < kLines; first += kStep)
#pragma GCC unroll 16
    for (int line = first; line < first + kStep; ++line) {
      if constexpr (kQ8) {
        Codes<kDot> w[kVecs];
#pragma GCC unroll 8
        for (int j = 0; j < kVecs; ++j) w[j] = Codes<kDot>(load(line, j));
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const VI x = four_codes(a[i] + line * 4);
#pragma GCC unroll 8
          for (int j = 0; j < kVecs; ++j) sum[i][j] = w[j].add(sum[i][j], x);
        }
      } else {
        VI both[kVecs];
#pragma GCC unroll 8
        for (int j = 0; j < kVecs; ++j) both[j] = load(line, j);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i) {
            const VI x = four_codes(a[i] + (line + half * kLines) * 4);
#pragma GCC unroll 8
            for (int j = 0; j < kVecs; ++j) {
              const VI w = half == 0 ? low_halves(both[j]) : high_halves(both[j]);
              sum[i][j] = bytes::add_small<kDot>(sum[i][j], w, x);
            }
          }
      }
    }
}

template <Dot kDot, bool kQ8, int kRows, int kPanels>
void int_tile(const IntTileArgs& t) {
  constexpr int kVecs = kPanels * kPerPanel;
  constexpr int64_t kBytes = quant_group_bytes(kQ8 ? PackedType::kQ8 : PackedType::kQ4);
  const D d;
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const int64_t groups = t.a.groups;
  const int64_t others = (kPanels - 1) * groups * kBytes;  // lie between a panel and the next tile
  int64_t row[kRows];
  const int8_t* a[kRows];
  V acc[kRows][kVecs];
  for (int i = 0; i < kRows; ++i) {
    row[i] = t.rows ? t.rows[i] : i;
    a[i] = t.a.codes + row[i] * groups * kQuantGroup;
#pragma GCC unroll 8
    for (int j = 0; j < kVecs; ++j) acc[i][j] = hn::Zero(d);
  }
  for (int64_t g = 0; g < groups; ++g) {
    VI sum[kRows][kVecs];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const int32_t shift = t.a.shifts[row[i] * groups + g];
#pragma GCC unroll 8
      for (int j = 0; j < kVecs; ++j)
        sum[i][j] = kQ8 ? Codes<kDot>::first(shift) : hn::Set(DI(), shift);
    }
    const int64_t ahead = g + kAhead / kBytes < groups ? kAhead : kAhead + others;
    add_group<kDot, kQ8, kRows, kVecs>(t.b + g * kBytes, groups * kBytes, ahead, a, sum);
#pragma GCC unroll 8
    for (int j = 0; j < kVecs; ++j) {
      const uint16_t* p =
          t.scales + (j / kPerPanel * groups + g) * kPanelCols + j % kPerPanel * kLanes;
      const V scale = hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, p))));
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const V scaled = hn::Mul(hn::ConvertTo(d, sum[i][j]), scale);
        acc[i][j] = fused(scaled, hn::Set(d, t.a.scales[row[i] * groups + g]), acc[i][j]);
      }
    }
    for (int i = 0; i < kRows; ++i) a[i] += kQuantGroup;
  }
  const TileArgs done{.c_old = t.c_old, .out = t.out, .ld_out = t.ld_out, .cols = t.cols};
  finish<kRows, kVecs>(done, acc);
}

#if HWY_TARGET == HWY_AVX3
// Rows in codes as the matrix unit reads them: 16 a tile, each right behind the one before.
CodedRows gather_rows(const IntBlockArgs& t) {
  const int64_t groups = t.a.groups, padded = (t.m + kBlockRows - 1) / kBlockRows * kBlockRows;
  const int64_t words = padded * groups;
  float* room = thread_scratch(static_cast<size_t>(words * (kQuantGroup / 4 + 2)));
  const CodedRows to{.codes = reinterpret_cast<int8_t*>(room),
                     .scales = room + words * (kQuantGroup / 4),
                     .shifts = reinterpret_cast<int32_t*>(room + words * (kQuantGroup / 4 + 1)),
                     .groups = groups};
  const auto n = static_cast<size_t>(groups);
  for (int64_t i = 0; i < padded; ++i) {
    const int64_t last = i < t.m ? i : t.m - 1, from = (t.rows ? t.rows[last] : last) * groups;
    std::memcpy(to.codes + i * groups * kQuantGroup, t.a.codes + from * kQuantGroup,
                n * kQuantGroup);
    std::memcpy(to.scales + i * groups, t.a.scales + from, n * sizeof(float));
    std::memcpy(to.shifts + i * groups, t.a.shifts + from, n * sizeof(int32_t));
  }
  return to;
}

// The codes of a group as bytes of their own.
HWY_INLINE void unpack_halves(const uint8_t* b, uint8_t* to) {
  const DI d;
  for (int i = 0; i < 8; ++i) {
    const VI both = hn::LoadU(d, reinterpret_cast<const int32_t*>(b + i * 64));
    hn::Store(low_halves(both), d, reinterpret_cast<int32_t*>(to + i * 64));
    hn::Store(high_halves(both), d, reinterpret_cast<int32_t*>(to + (i + 8) * 64));
  }
}

// One tile of 16 x 16, the first `height` rows of which are written. Two groups are under way at a
// time: the unit works on one while the vector units scale the other.
template <bool kQ8>
void amx_tile(const CodedRows& a, const uint8_t* b, const uint16_t* scales, int64_t height,
              const TileArgs& to) {
  constexpr int64_t kBytes = quant_group_bytes(kQ8 ? PackedType::kQ8 : PackedType::kQ4);
  const D d;
  const DI di;
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  alignas(64) int32_t sums[2][256];
  alignas(64) uint8_t bytes[kQ8 ? 64 : 1024];
  const int64_t lda = a.groups * kQuantGroup, line = 64;
  V acc[16][1];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) acc[i][0] = hn::Zero(d);
  const auto multiply = [&](int64_t g) HWY_ATTR {
    const uint8_t* codes = b + g * kBytes;
    for (int64_t at = 0; at < kBytes; at += 64) hwy::Prefetch(codes + kAhead + at);
    if constexpr (!kQ8) {
      unpack_halves(codes, bytes);
      codes = bytes;
    }
    asm volatile(
        "tilezero %%tmm0\n\t"
        "tileloadd (%0,%1,1), %%tmm1\n\t"
        "tileloadd (%2,%3,1), %%tmm2\n\t"
        "tdpbsud %%tmm2, %%tmm1, %%tmm0\n\t"
        "tilestored %%tmm0, (%4,%3,1)"
        :
        : "r"(a.codes + g * kQuantGroup), "r"(lda), "r"(codes), "r"(line), "r"(sums[g % 2])
        : "memory");
  };
  if (a.groups > 0) multiply(0);
  for (int64_t g = 0; g < a.groups; ++g) {
    if (g + 1 < a.groups) multiply(g + 1);
    const int32_t* sum = sums[g % 2];
    const V scale = hn::BitCast(
        d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, scales + g * kPanelCols))));
    const int32_t* shift = a.shifts + g;
    const float* factor = a.scales + g;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const VI whole = hn::Add(hn::Load(di, sum + i * 16), hn::Set(di, shift[i * a.groups]));
      const V scaled = hn::Mul(hn::ConvertTo(d, whole), scale);
      acc[i][0] = fused(scaled, hn::Set(d, factor[i * a.groups]), acc[i][0]);
    }
  }
  if (height == kBlockRows) return finish<16, 1>(to, acc);
  alignas(64) float rest[16][16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) hn::Store(acc[i][0], d, rest[i]);
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < to.cols; ++j) {
      float* out = to.out + i * to.ld_out + j;
      *out = to.c_old ? *out + rest[i][j] : rest[i][j];
    }
}

template <bool kQ8>
void amx_block(const IntBlockArgs& t) {
  const AmxTiles tiles;
  const int64_t groups = t.a.groups;
  const int64_t panel = groups * quant_group_bytes(kQ8 ? PackedType::kQ8 : PackedType::kQ4);
  const CodedRows all = t.rows || t.m % kBlockRows ? gather_rows(t) : t.a;
  for (int64_t i = 0; i < t.m; i += kBlockRows) {
    CodedRows a = all;  // stays in the nearest cache while the panels pass by
    a.codes += i * groups * kQuantGroup;
    a.scales += i * groups;
    a.shifts += i * groups;
    for (int64_t q = 0; q * kPanelCols < t.cols; ++q) {
      const int64_t left = t.cols - q * kPanelCols;
      float* out = t.out + i * t.ld_out + q * kPanelCols;
      amx_tile<kQ8>(a, t.b + q * panel, t.scales + q * groups * kPanelCols,
                    t.m - i < kBlockRows ? t.m - i : kBlockRows,
                    {.c_old = t.add ? out : nullptr,
                     .out = out,
                     .ld_out = t.ld_out,
                     .cols = left < kPanelCols ? left : kPanelCols});
    }
  }
}
#endif  // HWY_AVX3

// The codes of one group; the tail behind `size` becomes zero.
HWY_INLINE void code_group(const float* x, int64_t size, int32_t offset, int8_t* codes,
                           float* scale, int32_t* shift) {
  HWY_ALIGN float tail[kQuantGroup];
  if (size < kQuantGroup) {
    std::memset(tail, 0, sizeof tail);
    std::memcpy(tail, x, static_cast<size_t>(size) * sizeof(float));
    x = tail;
  }
  const D d;
  const DI di;
  const hn::Rebind<int8_t, D> d8;
  VI top = hn::Zero(di);  // as integers, sizes order like numbers and NaN is above all
  for (int i = 0; i < kQuantGroup; i += kLanes)
    top = hn::Max(top, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
  const int32_t bits = hn::GetLane(hn::MaxOfLanes(di, top));
  float most;
  std::memcpy(&most, &bits, sizeof most);
  *scale = 0;
  *shift = 0;
  if (bits >= 0x7F800000) *scale = std::numeric_limits<float>::quiet_NaN();
  if (!(most >= 1e-30f) || bits >= 0x7F800000) {
    std::memset(codes, 0, kQuantGroup);
    return;
  }
  *scale = most / 127.0f;
  const V inverse = hn::Set(d, 127.0f / most);
  VI sum = hn::Zero(di);
  for (int i = 0; i < kQuantGroup; i += kLanes) {
    const VI code = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
    sum = hn::Add(sum, code);
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
  }
  *shift = -offset * hn::GetLane(hn::SumOfLanes(di, sum));
}

void code_rows(const CodeArgs& c) {
  for (int64_t i = c.begin; i < c.end; ++i) {
    const float* x = c.a + i * c.lda;
    for (int64_t g = 0; g < c.to.groups; ++g) {
      const int64_t at = i * c.to.groups + g, k = g * kQuantGroup;
      code_group(x + k, c.k - k < kQuantGroup ? c.k - k : kQuantGroup, c.offset,
                 c.to.codes + at * kQuantGroup, c.to.scales + at, c.to.shifts + at);
    }
  }
}

// Sums and a line of weights stay in registers.
constexpr int int_rows(Dot dot) { return kLanes < 8 ? 1 : dot == Dot::kPairs ? 4 : 6; }
// One or two rows wait for memory, which is quickest as few streams.
constexpr int int_panels(Dot dot, int rows) {
  if (kLanes < 8) return 1;
  if (rows <= 2) return 2;
  return kLanes == 8 ? 1 : dot == Dot::kPairs ? 2 : 4;
}

template <Dot kDot, int kRows, int kPanels>
void fill_int_widths(IntTable& t) {
  t.q8[kRows][kPanels] = &int_tile<kDot, true, kRows, kPanels>;
  t.q4[kRows][kPanels] = &int_tile<kDot, false, kRows, kPanels>;
  if constexpr (kPanels > 1) fill_int_widths<kDot, kRows, kPanels - 1>(t);
}

template <Dot kDot, int... kRow>
IntTable int_table_of(std::integer_sequence<int, kRow...>) {
  IntTable t{};
  t.max_rows = int_rows(kDot);
  ((t.panels[kRow + 1] = int_panels(kDot, kRow + 1)), ...);
  (fill_int_widths<kDot, kRow + 1, int_panels(kDot, kRow + 1)>(t), ...);
  t.code_rows = &code_rows;
  return t;
}

template <Dot kDot>
const IntTable& int_table_for() {
  static const IntTable t = int_table_of<kDot>(std::make_integer_sequence<int, int_rows(kDot)>());
  return t;
}

std::vector<const IntTable*> make_int_tables() {
#if FATHOM_X86_INT
  const bool vnni = HWY_TARGET == HWY_AVX3 ? __builtin_cpu_supports("avx512vnni") : avx_vnni();
#if HWY_TARGET == HWY_AVX3
  static const IntTable matrix = [] {
    IntTable t = int_table_for<Dot::kVnni>();
    t.block_q8 = &amx_block<true>;
    t.block_q4 = &amx_block<false>;
    return t;
  }();
  if (vnni && amx_int8())
    return {&matrix, &int_table_for<Dot::kVnni>(), &int_table_for<Dot::kPairs>()};
#endif
  if (vnni) return {&int_table_for<Dot::kVnni>(), &int_table_for<Dot::kPairs>()};
  return {&int_table_for<Dot::kPairs>()};
#else
  return {&int_table_for<Dot::kPlain>()};
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_int_tables);

std::vector<const IntTable*> int_tables() { return HWY_DYNAMIC_DISPATCH(make_int_tables)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
