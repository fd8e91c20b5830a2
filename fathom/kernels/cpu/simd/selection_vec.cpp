#include "fathom/kernels/cpu/simd/selection_vec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

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

using LaneBits = std::conditional_t<(kLanesOf16 > 8), uint16_t, uint8_t>;

HWY_INLINE uint64_t lanes_in(hn::Mask<DI16> m) {
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(DI16(), m, bytes);
  LaneBits bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

#if HWY_TARGET == HWY_AVX2
// Highway copies its own table to the stack in every call when GCC 12 compiles it.
struct SetLanes {
  uint8_t of[256][8];
};
constexpr SetLanes set_lanes() {
  SetLanes out{};
  for (int bits = 0; bits < 256; ++bits)
    for (int lane = 0, n = 0; lane < 8; ++lane)
      if (bits >> lane & 1) out.of[bits][n++] = static_cast<uint8_t>(lane);
  return out;
}
constexpr SetLanes kSetLanes = set_lanes();
#endif

// The lanes in `keep`, side by side.
HWY_INLINE hn::Vec<DI16> compress(hn::Vec<DI16> x, uint64_t keep) {
#if HWY_TARGET == HWY_AVX2
  const hn::Rebind<uint8_t, DI16> bytes;
  const auto lanes = hn::PromoteTo(DI16(), hn::LoadU(bytes, kSetLanes.of[keep]));
  return hn::Vec<DI16>{_mm256_permutevar8x32_epi32(x.raw, lanes.raw)};
#else
  const auto bits = static_cast<LaneBits>(keep);
  uint8_t bytes[8] = {};
  std::memcpy(bytes, &bits, sizeof bits);
  return hn::CompressBits(x, bytes);
#endif
}

HWY_INLINE void store_kept(hn::Vec<DI16> pos, hn::Vec<U16> order, uint64_t keep, int32_t* to_pos,
                           uint32_t* to_order) {
  const DI16 di;
  hn::StoreU(compress(pos, keep), di, to_pos);
  hn::StoreU(hn::BitCast(U16(), compress(hn::BitCast(di, order), keep)), U16(), to_order);
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

struct OrderRange {
  uint32_t least, most;
};

OrderRange range_of(const uint32_t* order, int64_t n) {
  const U16 du;
  const auto first = hn::Set(du, order[0]);
  auto least = first, most = first;
  int64_t i = 0;
  for (; i + kLanesOf16 <= n; i += kLanesOf16) {
    const auto x = hn::LoadU(du, order + i);
    least = hn::Min(least, x);
    most = hn::Max(most, x);
  }
  OrderRange out = {hn::GetLane(hn::MinOfLanes(du, least)), hn::GetLane(hn::MaxOfLanes(du, most))};
  for (; i < n; ++i) out = {std::min(out.least, order[i]), std::max(out.most, order[i])};
  return out;
}

// Orders with the top bit turned over compare as signed numbers, which AVX2 has.
HWY_INLINE hn::Vec<DI16> as_signed(hn::Vec<U16> order) {
  return hn::BitCast(DI16(), hn::Xor(order, hn::Set(U16(), 0x80000000u)));
}
HWY_INLINE hn::Vec<DI16> as_signed(uint32_t order) { return as_signed(hn::Set(U16(), order)); }

constexpr int kBuckets = 8;

// A histogram: count[b] = how many of n orders are least + (b << shift) and the numbers behind, to
// the next bucket. All are in one.
void count_buckets(const uint32_t* order, int64_t n, uint32_t least, int shift, int64_t* count) {
  std::fill_n(count, kBuckets, 0);
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  // It stays in registers: byte b of a lane of 64 bits counts bucket b.
  const U16 du;
  const hn::RepartitionToWide<U16> d64;
  const auto from = hn::Set(du, least);
  const auto low_half = hn::Set(d64, 0xFFFFFFFFu), one = hn::Set(d64, 1);
  const auto even_bytes = hn::Set(d64, 0x00FF00FF00FF00FFu);
  while (i + kLanesOf16 <= n) {
    auto bytes = hn::Zero(d64);
    const int64_t full = HWY_MIN(i + 127 * kLanesOf16, n);  // until a byte may be full
    for (; i + kLanesOf16 <= full; i += kLanesOf16) {
      const auto x = hn::Sub(hn::LoadU(du, order + i), from);
      const auto bucket = hn::BitCast(d64, hn::ShiftLeft<3>(hn::ShiftRightSame(x, shift)));
      bytes = hn::Add(bytes, hn::Shl(one, hn::And(bucket, low_half)));
      bytes = hn::Add(bytes, hn::Shl(one, hn::ShiftRight<32>(bucket)));
    }
    const auto even = hn::And(bytes, even_bytes);
    const auto odd = hn::And(hn::ShiftRight<8>(bytes), even_bytes);
    const uint64_t sums[] = {hn::GetLane(hn::SumOfLanes(d64, even)),
                             hn::GetLane(hn::SumOfLanes(d64, odd))};
    for (int b = 0; b < kBuckets; ++b) count[b] += sums[b % 2] >> (b / 2 * 16) & 0xFFFF;
  }
#endif
  for (; i < n; ++i) ++count[(order[i] - least) >> shift];
}

// to = those of n orders that are first .. first + width - 1; returns how many. `to` may be
// `order`; both have room for 16 more.
int64_t copy_bucket(const uint32_t* order, int64_t n, uint32_t first, uint32_t width,
                    uint32_t* to) {
  const U16 du;
  const auto from = hn::Set(du, first);
  const auto end = as_signed(width);
  int64_t size = 0;
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto x = hn::LoadU(du, order + i);
    const auto inside = hn::Gt(end, as_signed(hn::Sub(x, from)));
    const uint64_t keep = lanes_in(inside) & low_bits(n - i);
    hn::StoreU(hn::BitCast(du, compress(hn::BitCast(DI16(), x), keep)), du, to + size);
    size += std::popcount(keep);
  }
  return size;
}

uint32_t keep_best(int32_t* pos, uint32_t* order, int64_t n, int64_t topk, int64_t most,
                   uint32_t* few, int64_t* kept) {
  // The bucket of the topk-th best, then the same with the orders of this bucket, until few enough
  // orders reach the bucket's least or all in it are equal.
  uint32_t last = 0;             // the bucket's least
  int64_t reach = n, above = 0;  // orders from `last` on, and above the bucket
  const uint32_t* from = order;
  for (int64_t size = n;;) {
    const OrderRange range = range_of(from, size);
    last = range.least;
    if (range.least == range.most) break;
    const int shift = std::max(0, static_cast<int>(std::bit_width(range.most - last)) - 3);
    int64_t count[kBuckets];
    count_buckets(from, size, last, shift, count);
    uint32_t b = kBuckets - 1;  // in which the topk-th is
    while (above + count[b] < topk) above += count[b--];
    last += b << shift;
    reach = above + count[b];
    if (reach <= most) break;
    size = copy_bucket(from, size, last, uint32_t{1} << shift, few);
    from = few;
  }
  // reach <= most: everything from `last` on stays. Else `last` is the order of the topk-th, and
  // some of its equals go.
  int64_t equal_left = reach <= most ? reach : topk - above;
  const DI16 di;
  const auto limit = as_signed(last);
  *kept = 0;
  for (int64_t i = 0; i < n; i += kLanesOf16) {
    const auto bits = hn::LoadU(U16(), order + i);
    const auto x = as_signed(bits);
    const uint64_t inside = low_bits(n - i);
    uint64_t equal = lanes_in(hn::Eq(x, limit)) & inside;
    uint64_t keep = lanes_in(hn::Gt(x, limit)) & inside;
    if (equal_left == 0) equal = 0;
    while (std::popcount(equal) > equal_left) equal ^= std::bit_floor(equal);
    equal_left -= std::popcount(equal);
    keep |= equal;
    if (keep == 0) continue;
    store_kept(hn::LoadU(di, pos + i), bits, keep, pos + *kept, order + *kept);
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
