// Weights stored as bf16 or e4m3: decoding in registers for few rows (bound by memory), and
// into a scratch panel for the f32 tiles. Decoding is exact, so both ways give the bits of gemm.h's
// rule.
//
// e4m3: the sign-extended byte shifted by 7 and masked is the f16 number value / 256, subnormals
// included; the packed scales hold the factor 256.
#include <cstring>
#include <utility>

#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/quant_gemm.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

constexpr int kPair = 2 * kPerPanel;  // vectors of two rows of a panel

// Each format: its element, whether a scale belongs to 128 k, and pair(), which decodes 32
// elements, two rows of a panel.
struct Bf16 {
  using T = uint16_t;
  static constexpr bool kScaled = false;
  static HWY_INLINE void pair(const T* p, V (&w)[kPair]) {
    const D d;
    const hn::Rebind<uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
#pragma GCC unroll 32
    for (int j = 0; j < kPair; ++j) {
      const auto wide = hn::PromoteTo(d32, hn::LoadU(d16, p + j * kLanes));
      w[j] = hn::BitCast(d, hn::ShiftLeft<16>(wide));
    }
  }
};

struct E4M3 {
  using T = int8_t;
  static constexpr bool kScaled = true;
  static HWY_INLINE void pair(const T* p, V (&w)[kPair]) {
#if HWY_NATIVE_FMA
    const D d;
    const hn::Repartition<int16_t, D> d16;
    const hn::Rebind<int8_t, decltype(d16)> d8;
    const hn::Repartition<hwy::float16_t, D> df16;
    const hn::Half<decltype(df16)> half;
    const auto mask = hn::Set(d16, static_cast<int16_t>(0xBF80));
#pragma GCC unroll 32
    for (int j = 0; j < kPair; j += 2) {
      const auto wide = hn::PromoteTo(d16, hn::LoadU(d8, p + j * kLanes));
      const auto f16 = hn::BitCast(df16, hn::And(hn::ShiftLeft<7>(wide), mask));
      w[j] = hn::PromoteTo(d, hn::LowerHalf(half, f16));
      w[j + 1] = hn::PromoteTo(d, hn::UpperHalf(half, f16));
    }
#else
    for (int j = 0; j < kPair; ++j) {
      const int code = static_cast<uint8_t>(p[j]), exponent = code >> 3 & 15, mantissa = code & 7;
      const float size = exponent == 0
                             ? std::ldexp(static_cast<float>(mantissa), -17)
                             : std::ldexp(static_cast<float>(8 + mantissa), exponent - 18);
      w[j] = hn::Set(D(), code & 128 ? -size : size);
    }
#endif
  }
};

template <class F>
void decode(const void* src, int64_t count, float* dst) {
  const auto* p = static_cast<const typename F::T*>(src);
  const D d;
  V w[kPair];
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    hwy::Prefetch(p + i + 2048 / static_cast<int64_t>(sizeof(typename F::T)));
    F::pair(p + i, w);
#pragma GCC unroll 32
    for (int j = 0; j < kPair; ++j) hn::StoreU(w[j], d, dst + i + j * kLanes);
  }
  if (i < count) {
    HWY_ALIGN typename F::T two_rows[32] = {};
    std::memcpy(two_rows, p + i, 16 * sizeof(typename F::T));
    F::pair(two_rows, w);
#pragma GCC unroll 32
    for (int j = 0; j < kPerPanel; ++j) hn::StoreU(w[j], d, dst + i + j * kLanes);
  }
}

// part += a[.][k] w[k] for two k (or one, at an odd end).
template <class F, int kRows, int kPanels, int kSteps>
HWY_INLINE void stream_steps(const typename F::T* b, int64_t b_panel, const float* a, int64_t lda,
                             V (&part)[kRows][kPanels * kPerPanel]) {
  const D d;
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q) {
    V w[kPair];
    F::pair(b + q * b_panel, w);
#pragma GCC unroll 2
    for (int u = 0; u < kSteps; ++u) {
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const V av = hn::Set(d, a[i * lda + u]);
#pragma GCC unroll 16
        for (int j = 0; j < kPerPanel; ++j) {
          V& acc = part[i][q * kPerPanel + j];
          acc = fused(av, w[u * kPerPanel + j], acc);
        }
      }
    }
  }
}

template <int kRows, int kVecs>
HWY_INLINE void zero(V (&acc)[kRows][kVecs]) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 64
    for (int j = 0; j < kVecs; ++j) acc[i][j] = hn::Zero(D());
  }
}

template <class F, int kRows, int kPanels>
void stream(const StreamArgs& s) {
  constexpr int kVecs = kPanels * kPerPanel;
  constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(typename F::T));
  const auto* base = static_cast<const typename F::T*>(s.b);
  const int64_t b_panel = s.k * kPanelCols, block = F::kScaled ? kScaleBlock : s.k;
  const int64_t scale_panel = (s.k + kScaleBlock - 1) / kScaleBlock;
  // From here on the early requests leave a panel, behind which the tile's others lie: they go on
  // behind those.
  const int64_t leaves = s.k - kAhead / kPanelCols, others = (kPanels - 1) * b_panel;
  V acc[kRows][kVecs];
  zero<kRows, kVecs>(acc);
  for (int64_t k0 = 0; k0 < s.k; k0 += block) {
    V part[kRows][kVecs];
    zero<kRows, kVecs>(part);
    const int64_t k1 = k0 + block < s.k ? k0 + block : s.k;
    const typename F::T* b = base + k0 * kPanelCols;
    int64_t k = k0;
    for (; k + 2 <= k1; k += 2, b += 2 * kPanelCols) {
      const typename F::T* ahead = b + (k < leaves ? kAhead : kAhead + others);
#pragma GCC unroll 4
      for (int q = 0; q < kPanels; ++q) hwy::Prefetch(ahead + q * b_panel);
      stream_steps<F, kRows, kPanels, 2>(b, b_panel, s.a + k, s.lda, part);
    }
    if (k < k1) {
      HWY_ALIGN typename F::T rows[kPanels * 32] = {};  // the panel ends here
      for (int q = 0; q < kPanels; ++q) {
        std::memcpy(rows + q * 32, b + q * b_panel, 16 * sizeof(typename F::T));
      }
      stream_steps<F, kRows, kPanels, 1>(rows, 32, s.a + k, s.lda, part);
    }
#pragma GCC unroll 64
    for (int j = 0; j < kVecs; ++j) {
      [[maybe_unused]] V scale = hn::Zero(D());
      if constexpr (F::kScaled)
        scale = hn::Set(D(), s.scales[j / kPerPanel * scale_panel + k0 / kScaleBlock]);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        if constexpr (F::kScaled) {
          acc[i][j] = fused(part[i][j], scale, acc[i][j]);
        } else {
          acc[i][j] = part[i][j];
        }
      }
    }
  }
  TileArgs t{.c_old = s.c_old, .out = s.out, .ld_out = s.ld_out, .cols = s.cols};
  finish<kRows, kVecs>(t, acc);
}

constexpr int kStreamRows = kLanes == 16 ? 8 : kLanes >= 4 ? 4 : 1;

constexpr int stream_panels(int rows) {
  return kLanes == 16 ? (rows <= 2 ? 4 : 2) : kLanes == 8 && rows == 1 ? 2 : 1;
}

template <class F, int kRows, int kPanels>
void fill_widths(StreamFn (&row)[kMaxPanels + 1]) {
  row[kPanels] = &stream<F, kRows, kPanels>;
  if constexpr (kPanels > 1) fill_widths<F, kRows, kPanels - 1>(row);
}

template <class F, int... kRow>
QuantTable table_of(std::integer_sequence<int, kRow...>) {
  QuantTable t{};
  t.max_rows = kStreamRows;
  ((t.panels[kRow + 1] = stream_panels(kRow + 1)), ...);
  (fill_widths<F, kRow + 1, stream_panels(kRow + 1)>(t.stream[kRow + 1]), ...);
  t.decode = &decode<F>;
  return t;
}

const QuantTable& make_quant_table(PackedType type) {
  constexpr auto kRows = std::make_integer_sequence<int, kStreamRows>();
  static const QuantTable bf16 = table_of<Bf16>(kRows), e4m3 = table_of<E4M3>(kRows);
  return type == PackedType::kBF16 ? bf16 : e4m3;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_quant_table);

const QuantTable& quant_table(PackedType type) {
  return HWY_DYNAMIC_DISPATCH(make_quant_table)(type);
}

}  // namespace fathom::simd
#endif  // HWY_ONCE
