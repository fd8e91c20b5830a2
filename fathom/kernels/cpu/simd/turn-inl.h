// Rows of keys the other way round, 16 bytes of each at a time, so that vectors run over keys.
// Included once per instruction set, after hwy/foreach_target.h.
#include "fathom/kernels/cpu/simd/vec16-inl.h"

#if defined(FATHOM_TURN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_TURN_INL_H_
#undef FATHOM_TURN_INL_H_
#else
#define FATHOM_TURN_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

using U32 = hn::RebindToUnsigned<D16>;

// Lines d of `to` = the 32-bit pieces d of kLanesOf16 rows' next 16 bytes, d = 0 .. 3.
HWY_INLINE void turn(const char* const* row, int64_t at, uint32_t* to) {
#if HWY_TARGET == HWY_SCALAR
  std::memcpy(to, row[0] + at, 16);
#else
  const U32 d;
  const hn::RepartitionToWide<U32> d64;
  const auto four = [&](int r) HWY_ATTR {
    return hn::LoadU(hn::CappedTag<uint32_t, 4>(), reinterpret_cast<const uint32_t*>(row[r] + at));
  };
  hn::Vec<U32> a[4];  // rows i, i + 4, .. in spans of 128 bits
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#if HWY_TARGET == HWY_AVX3
    // The load puts a span in its place; inserting it takes the port of the shuffles below.
    auto all = _mm512_broadcast_i32x4(four(i).raw);
    all = _mm512_mask_broadcast_i32x4(all, 0x00F0, four(i + 4).raw);
    all = _mm512_mask_broadcast_i32x4(all, 0x0F00, four(i + 8).raw);
    a[i] = hn::Vec<U32>{_mm512_mask_broadcast_i32x4(all, 0xF000, four(i + 12).raw)};
#elif HWY_TARGET == HWY_AVX2
    a[i] = hn::Combine(d, four(i + 4), four(i));
#else
    a[i] = four(i);
#endif
  }
  const auto low = [&](auto x, auto y) HWY_ATTR { return hn::InterleaveLower(d, x, y); };
  const auto high = [&](auto x, auto y) HWY_ATTR { return hn::InterleaveUpper(d, x, y); };
  const auto store = [&](int line, auto x)
                         HWY_ATTR { hn::Store(hn::BitCast(d, x), d, to + line * kLanesOf16); };
  const auto p = hn::BitCast(d64, low(a[0], a[1])), q = hn::BitCast(d64, low(a[2], a[3]));
  const auto r = hn::BitCast(d64, high(a[0], a[1])), s = hn::BitCast(d64, high(a[2], a[3]));
  store(0, hn::InterleaveLower(d64, p, q));
  store(1, hn::InterleaveUpper(d64, p, q));
  store(2, hn::InterleaveLower(d64, r, s));
  store(3, hn::InterleaveUpper(d64, r, s));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#endif
