#include "fathom/kernels/cpu/simd/selection_vec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/selection_vec.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

using U16 = hn::RebindToUnsigned<D16>;

HWY_INLINE hn::Vec<U16> order_of(hn::Vec<D16> score) {
  const D16 d;
  const DI16 di;
  const auto x = hn::Add(score, hn::Zero(d));
  const auto bits = hn::BitCast(di, x);
  const auto sign = hn::ShiftRight<31>(bits);  // all ones for negative numbers
  const auto flip = hn::Or(sign, hn::Set(di, std::numeric_limits<int32_t>::min()));
  const auto order_bits = hn::BitCast(d, hn::Xor(bits, flip));
  return hn::BitCast(
      U16(), hn::IfThenElseZero(hn::Gt(x, hn::Set(d, -std::numeric_limits<float>::infinity())),
                                order_bits));
}

void orders(const float* s, uint32_t* order) {
  for (int64_t i = 0; i < kBlock; i += kLanesOf16)
    hn::StoreU(order_of(hn::LoadU(D16(), s + i)), U16(), order + i);
}

HWY_INLINE uint64_t lanes_in(hn::Mask<DI16> m) {
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(DI16(), m, bytes);
  uint64_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

// The lanes in `keep`, side by side.
HWY_INLINE void store_kept(hn::Vec<DI16> pos, hn::Vec<U16> order, uint64_t keep, int32_t* to_pos,
                           uint32_t* to_order) {
  const DI16 di;
  uint8_t bytes[8];
  std::memcpy(bytes, &keep, sizeof keep);
  const auto m = hn::LoadMaskBits(di, bytes);
  hn::StoreU(hn::Compress(pos, m), di, to_pos);
  hn::StoreU(hn::BitCast(U16(), hn::Compress(hn::BitCast(di, order), m)), U16(), to_order);
}

int64_t append_above(const float* s, int64_t n, float threshold, int64_t from, int32_t* pos,
                     uint32_t* order) {
  const D16 d;
  const DI16 di;
  const auto limit = hn::Set(d, threshold);
  uint64_t keep = 0;
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto above = hn::Gt(hn::LoadU(d, s + i), limit);
    keep |= lanes_in(hn::RebindMask(di, above)) << i;
  }
  keep &= low_bits(n);
  int64_t size = 0;
  while (keep != 0) {  // the vectors that hold some; one branch of a block goes another way
    const int64_t i = std::countr_zero(keep) / kLanesOf16 * kLanesOf16;
    const uint64_t part = (keep >> i) & low_bits(kLanesOf16);
    store_kept(hn::Iota(di, static_cast<int32_t>(from + i)), order_of(hn::LoadU(d, s + i)), part,
               pos + size, order + size);
    size += std::popcount(part);
    keep ^= part << i;
  }
  return size;
}

// How many of n orders are at least `pivot`; lanes from n on in the last vector hold 0, the pivot
// does not.
HWY_INLINE int64_t count_from(const uint32_t* order, int64_t n, uint32_t pivot) {
  const U16 du;
  const DI16 di;
  // Compared as signed numbers with the top bit turned over, which AVX2 has.
  const auto turn = hn::Set(du, 0x80000000u);
  const auto limit = hn::BitCast(di, hn::Set(du, (pivot - 1) ^ 0x80000000u));
  auto count = hn::Zero(di);
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto x = hn::BitCast(di, hn::Xor(hn::LoadU(du, order + i), turn));
    count = hn::Sub(count, hn::VecFromMask(di, hn::Gt(x, limit)));
  }
  return hn::GetLane(hn::SumOfLanes(di, count));
}

// The bits in which some of n orders differ from the first; lanes from n on are not looked at.
uint32_t differing_bits(const uint32_t* order, int64_t n) {
  const U16 du;
  const auto first = hn::Set(du, order[0]);
  auto differ = hn::Zero(du);
  int64_t i = 0;
  for (; i + kLanesOf16 <= n; i += kLanesOf16)
    differ = hn::Or(differ, hn::Xor(hn::LoadU(du, order + i), first));
  HWY_ALIGN uint32_t lanes[kLanesOf16];
  hn::Store(differ, du, lanes);
  uint32_t out = 0;
  for (const uint32_t lane : lanes) out |= lane;
  for (; i < n; ++i) out |= order[i] ^ order[0];
  return out;
}

// to = those of n orders that are `first` + 0 .. span, a power of two less 1, then zeros for a
// vector; returns how many. `to` may be `order`.
int64_t copy_between(const uint32_t* order, int64_t n, uint32_t first, uint32_t span,
                     uint32_t* to) {
  const DI16 di;
  const auto prefix = hn::Set(di, static_cast<int32_t>(first));
  const auto upper = hn::Set(di, static_cast<int32_t>(~span));
  int64_t size = 0;
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto x = hn::BitCast(di, hn::LoadU(U16(), order + i));
    const auto inside = hn::Eq(hn::And(x, upper), prefix);
    const uint64_t keep = lanes_in(inside) & low_bits(n - i);
    hn::StoreU(hn::BitCast(U16(), hn::Compress(x, inside)), U16(), to + size);
    size += std::popcount(keep);
  }
  std::fill_n(to + size, kLanesOf16, 0u);
  return size;
}

uint32_t keep_best(int32_t* pos, uint32_t* order, int64_t n, int64_t topk, int64_t most,
                   int64_t* kept) {
  std::fill_n(order + n, 16, 0u);
  // The largest number that at least topk orders reach, bit by bit from the first in which some
  // differ. `over` orders are larger than all numbers that it may still be; those that it may be
  // are soon few, and looked at alone.
  constexpr int64_t kFew = 1024;
  HWY_ALIGN uint32_t few[kFew + 16];
  const uint32_t differ = differing_bits(order, n);
  uint32_t last = order[0] & ~static_cast<uint32_t>(low_bits(std::bit_width(differ)));
  const uint32_t* from = order;
  int64_t size = n, larger = 0;  // of `from`; orders that are larger and not there
  int64_t reach = n, over = 0;
  for (uint32_t bit = std::bit_floor(differ); bit != 0 && reach > most; bit >>= 1) {
    const int64_t count = larger + count_from(from, size, last | bit);
    if (count >= topk) {
      last |= bit;
      reach = count;
    } else {
      over = count;
    }
    if (reach - over > kFew || 4 * (reach - over) > size) continue;
    size = copy_between(from, size, last, bit - 1, few);
    from = few;
    larger = over;
  }
  // reach <= most: everything from `last` on stays. Else `last` is the order of the topk-th, and
  // some of its equals go.
  int64_t equal_left = reach <= most ? reach : topk - over;
  const U16 du;
  const DI16 di;
  const auto turn = hn::Set(du, 0x80000000u);
  const auto limit = hn::BitCast(di, hn::Set(du, last ^ 0x80000000u));
  *kept = 0;
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto o = hn::LoadU(du, order + i);
    const auto x = hn::BitCast(di, hn::Xor(o, turn));
    const uint64_t inside = low_bits(n - i);
    uint64_t equal = lanes_in(hn::Eq(x, limit)) & inside;
    uint64_t keep = lanes_in(hn::Gt(x, limit)) & inside;
    while (std::popcount(equal) > equal_left) equal &= ~std::bit_floor(equal);
    equal_left -= std::popcount(equal);
    keep |= equal;
    if (keep == 0) continue;
    store_kept(hn::LoadU(di, pos + i), o, keep, pos + *kept, order + *kept);
    *kept += std::popcount(keep);
  }
  return last;
}

}  // namespace

const SelectionVec& make_selection_vec() {
  static constexpr SelectionVec kTable = {
      .orders = &orders, .append_above = &append_above, .keep_best = &keep_best};
  return kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_selection_vec);

const SelectionVec& selection_vec() { return HWY_DYNAMIC_DISPATCH(make_selection_vec)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
