// Products of bytes: unsigned codes, which are stored with an offset, times signed ones, four in
// each 32 bits. All sums are exact, so every way to add them gives the same bits. Included once per
// instruction set, after hwy/foreach_target.h.

#if defined(FATHOM_BYTE_DOTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_BYTE_DOTS_INL_H_
#undef FATHOM_BYTE_DOTS_INL_H_
#else
#define FATHOM_BYTE_DOTS_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

#undef FATHOM_X86_INT
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#define FATHOM_X86_INT 1
#else
#define FATHOM_X86_INT 0
#endif

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace bytes {
namespace hn = hwy::HWY_NAMESPACE;

using DI = hn::CappedTag<int32_t, 16>;
using VI = hn::Vec<DI>;

// kVnni: four products and their sum at once. kPairs: sums of two products in 16 bits, which two
// codes of eight bits with their signs fill. kPlain: one by one.
enum class Dot { kVnni, kPairs, kPlain };

#if FATHOM_X86_INT
HWY_INLINE VI dot_vnni(VI sum, VI unsigned_codes, VI x) {
#if HWY_TARGET == HWY_AVX3
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(unsigned_codes.raw), "v"(x.raw));
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(unsigned_codes.raw), "x"(x.raw));
#endif
  return sum;
}

HWY_INLINE VI dot_pairs(VI sum, VI unsigned_codes, VI x) {
  const hn::Repartition<int16_t, DI> d16;
  const auto ones = hn::Set(d16, 1);
#if HWY_TARGET == HWY_AVX3
  const auto pairs = _mm512_maddubs_epi16(unsigned_codes.raw, x.raw);
  sum = hn::Add(sum, VI{_mm512_madd_epi16(pairs, ones.raw)});
  asm("" : "+v"(sum.raw));  // GCC would keep products in memory to add them in another order
#else
  const auto pairs = _mm256_maddubs_epi16(unsigned_codes.raw, x.raw);
  sum = hn::Add(sum, VI{_mm256_madd_epi16(pairs, ones.raw)});
  asm("" : "+x"(sum.raw));  // as above
#endif
  return sum;
}
#endif  // FATHOM_X86_INT

HWY_INLINE VI dot_plain(VI sum, VI unsigned_codes, VI x) {
  const DI d;
  const auto byte = hn::Set(d, 255);
  const VI w = unsigned_codes;
  sum = hn::Add(sum, hn::Mul(hn::And(w, byte), hn::ShiftRight<24>(hn::ShiftLeft<24>(x))));
  sum = hn::Add(
      sum, hn::Mul(hn::And(hn::ShiftRight<8>(w), byte), hn::ShiftRight<24>(hn::ShiftLeft<16>(x))));
  sum = hn::Add(
      sum, hn::Mul(hn::And(hn::ShiftRight<16>(w), byte), hn::ShiftRight<24>(hn::ShiftLeft<8>(x))));
  return hn::Add(sum, hn::Mul(hn::And(hn::ShiftRight<24>(w), byte), hn::ShiftRight<24>(x)));
}

// Four signed codes, the same ones in each 32 bits.
HWY_INLINE VI four_codes(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return hn::Set(DI(), four);
}

// sum + the products of x and codes below 16
template <Dot kDot>
HWY_INLINE VI add_small(VI sum, VI codes, VI x) {
#if FATHOM_X86_INT
  if constexpr (kDot == Dot::kVnni) return dot_vnni(sum, codes, x);
  if constexpr (kDot == Dot::kPairs) return dot_pairs(sum, codes, x);
#endif
  return dot_plain(sum, codes, x);
}

// Codes of eight bits with an offset of 128, as they are multiplied.
template <Dot kDot>
struct Codes {
  Codes() = default;
  HWY_INLINE explicit Codes(VI with_offset) : codes(with_offset) {}
  // sum + the products of x and the codes with their offset
  HWY_INLINE VI add(VI sum, VI x) const { return add_small<kDot>(sum, codes, x); }
  // What sums begin with; shift = -128 * the sum of all x.
  static HWY_INLINE VI first(int32_t shift) { return hn::Set(DI(), shift); }

  VI codes;
};

#if FATHOM_X86_INT
// Their sizes times x with their signs: no sum of two leaves 16 bits, as it would with the offset.
template <>
struct Codes<Dot::kPairs> {
  Codes() = default;
  HWY_INLINE explicit Codes(VI with_offset) {
    const hn::Repartition<int8_t, DI> d8;
    const auto value = hn::Xor(hn::BitCast(d8, with_offset), hn::Set(d8, int8_t{-128}));
    size = hn::BitCast(DI(), hn::Abs(value));
#if HWY_TARGET == HWY_AVX3
    negative = _mm512_movepi8_mask(value.raw);
#else
    sign = hn::BitCast(DI(), value);
#endif
  }
  HWY_INLINE VI add(VI sum, VI x) const {
#if HWY_TARGET == HWY_AVX3
    const VI turned{_mm512_mask_sub_epi8(x.raw, negative, _mm512_setzero_si512(), x.raw)};
#else
    const VI turned{_mm256_sign_epi8(x.raw, sign.raw)};
#endif
    return dot_pairs(sum, size, turned);
  }
  static HWY_INLINE VI first(int32_t) { return hn::Zero(DI()); }

  VI size;
#if HWY_TARGET == HWY_AVX3
  __mmask64 negative;
#else
  VI sign;
#endif
};
#endif  // FATHOM_X86_INT

}  // namespace bytes
}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif
