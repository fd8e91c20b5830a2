// Sixteen logical f32 lanes, whatever the vector width: one 512-bit, two 256-bit or four 128-bit
// vectors. Every function gives the same bits on every instruction set. In-row sums put element i
// into lane i % 16 and end with `sum16`.
//
// Included once per instruction set, after hwy/foreach_target.h. Callables given to `sweep` carry
// HWY_ATTR.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "fathom/kernels/cpu/simd/targets.h"
#include "hwy/highway.h"

#if defined(FATHOM_VEC16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_VEC16_INL_H_
#undef FATHOM_VEC16_INL_H_
#else
#define FATHOM_VEC16_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<float, 16>;
using DI16 = hn::RebindToSigned<D16>;
constexpr int kLanesOf16 = HWY_LANES(float) < 16 ? HWY_LANES(float) : 16;
constexpr int kVecsOf16 = 16 / kLanesOf16;

// Without vectors, functions and loops of sixteen steps: written out they are most of what a
// kernel's file takes to compile.
#if HWY_TARGET == HWY_SCALAR
#define FATHOM_INLINE16 inline HWY_NOINLINE
#define FATHOM_UNROLL16 _Pragma("GCC unroll 1")
#else
#define FATHOM_INLINE16 HWY_INLINE
#define FATHOM_UNROLL16 _Pragma("GCC unroll 16")
#endif

struct V16 {
  hn::Vec<D16> v[kVecsOf16];
};
struct M16 {  // sixteen truth values
  hn::Mask<D16> m[kVecsOf16];
};

// `expression` gives vector i of the result
#define FATHOM_EACH16(type, field, expression)                                     \
  type out;                                                                        \
  FATHOM_UNROLL16 for (int i = 0; i < kVecsOf16; ++i) out.field[i] = (expression); \
  return out

FATHOM_INLINE16 V16 splat(float x) { FATHOM_EACH16(V16, v, hn::Set(D16(), x)); }
FATHOM_INLINE16 V16 zero16() { FATHOM_EACH16(V16, v, hn::Zero(D16())); }
FATHOM_INLINE16 V16 operator+(V16 a, V16 b) { FATHOM_EACH16(V16, v, hn::Add(a.v[i], b.v[i])); }
FATHOM_INLINE16 V16 operator-(V16 a, V16 b) { FATHOM_EACH16(V16, v, hn::Sub(a.v[i], b.v[i])); }
FATHOM_INLINE16 V16 operator*(V16 a, V16 b) { FATHOM_EACH16(V16, v, hn::Mul(a.v[i], b.v[i])); }
FATHOM_INLINE16 V16 operator/(V16 a, V16 b) { FATHOM_EACH16(V16, v, hn::Div(a.v[i], b.v[i])); }
FATHOM_INLINE16 V16 sqrt16(V16 a) { FATHOM_EACH16(V16, v, hn::Sqrt(a.v[i])); }
FATHOM_INLINE16 V16 abs16(V16 a) { FATHOM_EACH16(V16, v, hn::Abs(a.v[i])); }

FATHOM_INLINE16 hn::Vec<D16> fused_vec(hn::Vec<D16> a, hn::Vec<D16> b, hn::Vec<D16> c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  HWY_ALIGN float x[kLanesOf16], y[kLanesOf16], z[kLanesOf16];
  hn::Store(a, D16(), x);
  hn::Store(b, D16(), y);
  hn::Store(c, D16(), z);
  for (int i = 0; i < kLanesOf16; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return hn::Load(D16(), z);
#endif
}
// a b + c, rounded once
FATHOM_INLINE16 V16 fused(V16 a, V16 b, V16 c) {
  FATHOM_EACH16(V16, v, fused_vec(a.v[i], b.v[i], c.v[i]));
}

// Comparisons with NaN are false.
FATHOM_INLINE16 M16 operator>(V16 a, V16 b) { FATHOM_EACH16(M16, m, hn::Gt(a.v[i], b.v[i])); }
FATHOM_INLINE16 M16 operator>=(V16 a, V16 b) { FATHOM_EACH16(M16, m, hn::Ge(a.v[i], b.v[i])); }
FATHOM_INLINE16 M16 operator==(V16 a, V16 b) { FATHOM_EACH16(M16, m, hn::Eq(a.v[i], b.v[i])); }
FATHOM_INLINE16 V16 select(M16 m, V16 yes, V16 no) {
  FATHOM_EACH16(V16, v, hn::IfThenElse(m.m[i], yes.v[i], no.v[i]));
}
// Lanes 2i and 2i + 1 change places.
FATHOM_INLINE16 V16 swap_pairs16(V16 a) {
#if HWY_TARGET == HWY_SCALAR
  FATHOM_EACH16(V16, v, a.v[i ^ 1]);
#else
  FATHOM_EACH16(V16, v, hn::Shuffle2301(a.v[i]));
#endif
}
// The larger; b where either is NaN (so the second operand is the running maximum when NaN shall be
// ignored).
FATHOM_INLINE16 V16 max16(V16 a, V16 b) { return select(a > b, a, b); }
FATHOM_INLINE16 V16 min16(V16 a, V16 b) { return select(b > a, a, b); }

// Lanes 0 .. n-1
FATHOM_INLINE16 M16 first_lanes(int64_t n) {
  FATHOM_EACH16(
      M16, m,
      hn::FirstN(D16(), static_cast<size_t>(HWY_MAX(
                            int64_t{0}, HWY_MIN(n - i * kLanesOf16, int64_t{kLanesOf16})))));
}

// How many of the 16 lanes a load or store touches: all of them, or the first n.
struct Whole {};
struct Part {
  int64_t n;
};

FATHOM_INLINE16 V16 load16(const float* p, Whole = {}) {
  FATHOM_EACH16(V16, v, hn::LoadU(D16(), p + i * kLanesOf16));
}
// Lanes from n on are zero; memory behind them is not touched.
FATHOM_INLINE16 V16 load16(const float* p, Part part) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3  // masked lanes never fault
  const M16 mask = first_lanes(part.n);
  FATHOM_EACH16(V16, v, hn::MaskedLoad(mask.m[i], D16(), p + i * kLanesOf16));
#else
  HWY_ALIGN float buffer[16] = {};
  std::memcpy(buffer, p, static_cast<size_t>(part.n) * sizeof(float));
  return load16(buffer);
#endif
}
FATHOM_INLINE16 void store16(V16 a, float* p, Whole = {}) {
  FATHOM_UNROLL16
  for (int i = 0; i < kVecsOf16; ++i) hn::StoreU(a.v[i], D16(), p + i * kLanesOf16);
}
FATHOM_INLINE16 void store16(V16 a, float* p, Part part) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const M16 mask = first_lanes(part.n);
  FATHOM_UNROLL16
  for (int i = 0; i < kVecsOf16; ++i)
    hn::BlendedStore(a.v[i], mask.m[i], D16(), p + i * kLanesOf16);
#else
  HWY_ALIGN float buffer[16];
  store16(a, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(part.n) * sizeof(float));
#endif
}
// The lanes of a tail that hold no element become `neutral`.
FATHOM_INLINE16 V16 pad(V16 a, Whole, float) { return a; }
FATHOM_INLINE16 V16 pad(V16 a, Part part, float neutral) {
  return select(first_lanes(part.n), a, splat(neutral));
}

// f(i, Whole{}) for i = 0, 16, .. and f(i, Part{rest}) for a tail
template <class F>
FATHOM_INLINE16 void sweep(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f(i, Whole{});
  if (i < n) f(i, Part{n - i});
}

namespace detail {

struct Plus {
  template <class V>
  FATHOM_INLINE16 V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct Larger {
  template <class V>
  FATHOM_INLINE16 V operator()(V a, V b) const {
    return hn::IfThenElse(hn::Gt(a, b), a, b);
  }
};

// Lanes joined in the order (i, i+8), (i, i+4), (i, i+2), (i, i+1).
template <class Op>
FATHOM_INLINE16 float tree16(V16 a, Op op) {
#if HWY_TARGET == HWY_SCALAR
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = op(a.v[i], a.v[i + half]);
  return hn::GetLane(a.v[0]);
#else
  const hn::FixedTag<float, 4> d4;
  hn::Vec<hn::FixedTag<float, 4> > x;
#if HWY_MAX_BYTES >= 64
  const hn::Half<D16> d8;
  const auto y = op(hn::LowerHalf(d8, a.v[0]), hn::UpperHalf(d8, a.v[0]));
  x = op(hn::LowerHalf(d4, y), hn::UpperHalf(d4, y));
#elif HWY_MAX_BYTES == 32
  const auto y = op(a.v[0], a.v[1]);
  x = op(hn::LowerHalf(d4, y), hn::UpperHalf(d4, y));
#else
  x = op(op(a.v[0], a.v[2]), op(a.v[1], a.v[3]));
#endif
  x = op(x, hn::Shuffle1032(x));
  x = op(x, hn::Shuffle2301(x));
  return hn::GetLane(x);
#endif
}

}  // namespace detail

FATHOM_INLINE16 float sum16(V16 a) { return detail::tree16(a, detail::Plus()); }
FATHOM_INLINE16 float largest16(V16 a) { return detail::tree16(a, detail::Larger()); }

// e^x within 1.1 units in the last place, gradual underflow; exp16(-inf) = 0, exp16(inf) = inf, NaN
// stays NaN.
FATHOM_INLINE16 V16 exp16(V16 x) {
  const float kRound = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
  const V16 z = min16(max16(x, splat(-104)), splat(89));
  const V16 shifted = fused(z, splat(1.44269504f), splat(kRound));
  const V16 n = shifted - splat(kRound);
  V16 r = fused(n, splat(-0.693145751953125f), z);  // ln 2 in two parts; the first product is exact
  r = fused(n, splat(-1.428606765330187e-06f), r);
  V16 p = fused(r, splat(1.9875691500e-4f), splat(1.3981999507e-3f));  // Cephes expf
  p = fused(p, r, splat(8.3334519073e-3f));
  p = fused(p, r, splat(4.1665795894e-2f));
  p = fused(p, r, splat(1.6666665459e-1f));
  p = fused(p, r, splat(5.0000001201e-1f));
  p = fused(p, r * r, r) + splat(1);
  // 2^n as a product of two powers, so that results below the normal range are rounded once
  V16 out;
  FATHOM_UNROLL16
  for (int i = 0; i < kVecsOf16; ++i) {
    const DI16 di;
    const auto whole = hn::Sub(hn::BitCast(di, shifted.v[i]), hn::Set(di, 0x4B400000));
    const auto first = hn::ShiftRight<1>(whole);
    const auto second = hn::Sub(whole, first);
    const auto bias = hn::Set(di, 127);
    const auto power1 = hn::BitCast(D16(), hn::ShiftLeft<23>(hn::Add(first, bias)));
    const auto power2 = hn::BitCast(D16(), hn::ShiftLeft<23>(hn::Add(second, bias)));
    out.v[i] = hn::Mul(hn::Mul(p.v[i], power1), power2);
  }
  return select(x == x, out, x);
}

// 1 / (1 + e^-x)
FATHOM_INLINE16 V16 sigmoid16(V16 x) { return splat(1) / (splat(1) + exp16(zero16() - x)); }
FATHOM_INLINE16 V16 silu16(V16 x) { return x * sigmoid16(x); }

#undef FATHOM_EACH16
#undef FATHOM_UNROLL16
#undef FATHOM_INLINE16

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif  // FATHOM_VEC16_INL_H_
