// FP8 simulation: 1 x 128 activation quantisation, Hadamard rotation, bf16 rounding (model
// spec 4.1, 4.2).
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/fp8.cpp"
#include "hwy/foreach_target.h"

#include <algorithm>
#include <bit>

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

using DU16 = hn::RebindToUnsigned<D16>;

struct Quantised {
  V16 value;  // of the e4m3 code, before the scale
  hn::Vec<DU16> code[kVecsOf16];
};

// The conversion of to_e4m3 (tensor/dtype.h) in sixteen lanes.
HWY_INLINE Quantised to_e4m3_16(V16 x) {
  const D16 d;
  const DU16 du;
  Quantised out;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) {
    const auto bits = hn::BitCast(du, x.v[i]);
    const auto sign = hn::And(bits, hn::Set(du, 0x80000000u));
    const auto number = hn::Eq(x.v[i], x.v[i]);  // Ne is false for NaN on some targets
    const auto magnitude =
        hn::Min(hn::BitCast(d, hn::AndNot(hn::Set(du, 0x80000000u), bits)), hn::Set(d, 448.0f));
    const auto m = hn::BitCast(du, magnitude);
    // below 2^-6: the unit in the last place of 2^14 is 2^-9, the step of the small numbers
    const auto shifted = hn::Add(magnitude, hn::Set(d, 0x1p14f));
    const auto small_code = hn::Sub(hn::BitCast(du, shifted), hn::Set(du, 0x46800000u));
    const auto small_value = hn::Sub(shifted, hn::Set(d, 0x1p14f));
    const auto odd = hn::And(hn::ShiftRight<20>(m), hn::Set(du, 1u));
    const auto rounded = hn::Add(hn::Add(m, hn::Set(du, 0x7FFFFu)), odd);
    const auto large_code = hn::ShiftRight<20>(hn::Sub(rounded, hn::Set(du, 120u << 23)));
    const auto large_value = hn::BitCast(d, hn::And(rounded, hn::Set(du, 0xFFF00000u)));
    const auto small = hn::Lt(magnitude, hn::Set(d, 0x1p-6f));
    auto code = hn::IfThenElse(hn::RebindMask(du, small), small_code, large_code);
    code = hn::IfThenElse(hn::RebindMask(du, number), code, hn::Set(du, 0x7Fu));
    out.code[i] = hn::Or(code, hn::ShiftRight<24>(sign));
    const auto value = hn::BitCast(du, hn::IfThenElse(small, small_value, large_value));
    out.value.v[i] = hn::IfThenElse(number, hn::BitCast(d, hn::Or(value, sign)), x.v[i]);
  }
  return out;
}

HWY_INLINE void store_codes(const Quantised& q, uint8_t* to, int64_t n) {
  HWY_ALIGN uint32_t code[16];
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) hn::Store(q.code[i], DU16(), code + i * kLanesOf16);
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(code[i]);
}
HWY_INLINE int64_t lanes_of(Whole) { return 16; }
HWY_INLINE int64_t lanes_of(Part part) { return part.n; }

float scale_of(const float* x, int64_t n, ScaleFormat format) {
  V16 amax = splat(1e-4f);
  sweep(n, [&](int64_t i, auto part) HWY_ATTR { amax = max16(abs16(load16(x + i, part)), amax); });
  const float scale = largest16(amax) * (1.0f / 448);
  if (format == ScaleFormat::kF32) return scale;
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  const uint32_t exponent = (bits >> 23 & 0xFFu) + ((bits & 0x7FFFFFu) != 0 ? 1 : 0);
  return std::bit_cast<float>(std::clamp(exponent, 1u, 254u) << 23);
}

void act_quant_rows(const ActQuant& a, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = 128;
  const int64_t D = a.x.dim[1];
  for (int64_t t = begin; t < end; ++t)
    for (int64_t first = 0; first < D; first += kGroup) {
      const int64_t n = std::min(kGroup, D - first);
      const float* x = row(a.x, t) + first;
      float* y = a.y ? row(a.y, t) + first : nullptr;
      uint8_t* codes =
          a.codes ? static_cast<uint8_t*>(a.codes.data) + t * a.codes.stride[0] + first : nullptr;
      const float scale = scale_of(x, n, a.format);
      sweep(n, [&](int64_t i, auto part) HWY_ATTR {
        const Quantised q = to_e4m3_16(load16(x + i, part) / splat(scale));
        if (codes) store_codes(q, codes + i, lanes_of(part));
        if (y) store16(q.value * splat(scale), y + i, part);
      });
      if (a.scales) row(a.scales, t)[first / kGroup] = scale;
    }
}

// Butterflies over neighbours, then over whole vectors; the order of additions is that of the plain
// transform.
void hadamard_rows(const Hadamard& a, int64_t begin, int64_t end) {
  const int64_t D = a.x.dim[1];
  const V16 scale = splat(static_cast<float>(1 / std::sqrt(static_cast<double>(D))));
  for (int64_t t = begin; t < end; ++t) {
    const float* x = row(a.x, t);
    float* y = row(a.y, t);
    if (x != y) std::memcpy(y, x, static_cast<size_t>(D) * sizeof(float));
    for (int64_t step = 1; step < std::min<int64_t>(D, 16); step *= 2)
      for (int64_t i = 0; i < D; i += 2 * step)
        for (int64_t j = i; j < i + step; ++j) {
          const float p = y[j], q = y[j + step];
          y[j] = p + q;
          y[j + step] = p - q;
        }
    for (int64_t step = 16; step < D; step *= 2)
      for (int64_t i = 0; i < D; i += 2 * step)
        for (int64_t j = i; j < i + step; j += 16) {
          const V16 p = load16(y + j), q = load16(y + j + step);
          store16(p + q, y + j);
          store16(p - q, y + j + step);
        }
    sweep(D, [&](int64_t i, auto part)
                 HWY_ATTR { store16(load16(y + i, part) * scale, y + i, part); });
  }
}

void round_bf16_rows(const RoundBf16& a, int64_t begin, int64_t end) {
  const DU16 du;
  for (int64_t t = begin; t < end; ++t) {
    const float* x = row(a.x, t);
    float* y = row(a.y, t);
    sweep(a.x.dim[1], [&](int64_t i, auto part) HWY_ATTR {
      V16 v = load16(x + i, part);
#pragma GCC unroll 16
      for (int j = 0; j < kVecsOf16; ++j) {
        const auto u = hn::BitCast(du, v.v[j]);
        const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
        const auto rounded = hn::Add(hn::Add(u, hn::Set(du, 0x7FFFu)), odd);
        const auto quiet = hn::Or(u, hn::Set(du, 0x400000u));
        const auto number = hn::RebindMask(du, hn::Eq(v.v[j], v.v[j]));
        const auto kept = hn::And(hn::IfThenElse(number, rounded, quiet), hn::Set(du, 0xFFFF0000u));
        v.v[j] = hn::BitCast(D16(), kept);
      }
      store16(v, y + i, part);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(act_quant_rows);
HWY_EXPORT(hadamard_rows);
HWY_EXPORT(round_bf16_rows);

void act_quant(const Exec& exec, const ActQuant& a) {
  if (a.x.dtype != DType::kF32) return ref::act_quant(exec, a);
  for_rows(exec, a.x.dim[0], a.x.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(act_quant_rows)(a, begin, end);
  });
}

void hadamard(const Exec& exec, const Hadamard& a) {
  if (a.x.dtype != DType::kF32) return ref::hadamard(exec, a);
  FM_CHECK(a.x.dim[1] == 0 || std::has_single_bit(static_cast<uint64_t>(a.x.dim[1])),
           "Hadamard of {} elements", a.x.dim[1]);
  for_rows(exec, a.x.dim[0], a.x.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(hadamard_rows)(a, begin, end);
  });
}

void round_bf16(const Exec& exec, const RoundBf16& a) {
  if (a.x.dtype != DType::kF32) return ref::round_bf16(exec, a);
  for_rows(exec, a.x.dim[0], a.x.dim[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(round_bf16_rows)(a, begin, end);
  });
}

}  // namespace fathom::simd
#endif
