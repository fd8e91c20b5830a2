#include "fathom/kernels/cpu/simd/attention_few.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_few.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
using V = hn::Vec<D16>;
using U32 = hn::RebindToUnsigned<D16>;

constexpr int kMost = 4;                            // keys of a group
constexpr int kGroups = kLanesOf16 == 16 ? 16 : 8;  // groups of keys whose sums stay in registers
constexpr int kSpan = 16 / sizeof(float);           // f32 of 128 bits
constexpr int kSpans = kLanesOf16 / kSpan;

// The keys whose numbers lie side by side in a vector with those of `heads` heads.
int64_t keys_together(int64_t heads) {
  const int64_t room =
      kLanesOf16 / static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(heads)));
  return HWY_MIN(room, int64_t{kMost});
}

// kKeys rows from number k on, their numbers side by side: the units of a span of 128 bits follow
// one another, spans of a vector too, as interleaving leaves them.
template <class T, int kKeys>
HWY_INLINE void interleave(const T* const (&row)[kKeys], int64_t k, float* to) {
  const hn::Repartition<T, D16> d;
  using Numbers = hn::Vec<decltype(d)>;
  Numbers mixed[kKeys];
  if constexpr (kKeys == 1) {
    mixed[0] = hn::LoadU(d, row[0] + k);
  }
  if constexpr (kKeys == 2) {
    const Numbers a = hn::LoadU(d, row[0] + k), b = hn::LoadU(d, row[1] + k);
    mixed[0] = hn::InterleaveLower(d, a, b);
    mixed[1] = hn::InterleaveUpper(d, a, b);
  }
  if constexpr (kKeys == 4) {
    const Numbers a = hn::LoadU(d, row[0] + k), b = hn::LoadU(d, row[1] + k),
                  c = hn::LoadU(d, row[2] + k), e = hn::LoadU(d, row[3] + k);
    const Numbers ac = hn::InterleaveLower(d, a, c), be = hn::InterleaveLower(d, b, e);
    const Numbers ac2 = hn::InterleaveUpper(d, a, c), be2 = hn::InterleaveUpper(d, b, e);
    mixed[0] = hn::InterleaveLower(d, ac, be);
    mixed[1] = hn::InterleaveUpper(d, ac, be);
    mixed[2] = hn::InterleaveLower(d, ac2, be2);
    mixed[3] = hn::InterleaveUpper(d, ac2, be2);
  }
  for (int i = 0; i < kKeys; ++i) {
    if constexpr (sizeof(T) == 4) {
      hn::Store(hn::BitCast(D16(), mixed[i]), D16(), to + i * kLanesOf16);
    } else {
      const Numbers zero = hn::Zero(d);  // a bf16 above 16 zeros is an f32
      hn::Store(hn::BitCast(D16(), hn::InterleaveLower(d, zero, mixed[i])), D16(),
                to + 2 * i * kLanesOf16);
      hn::Store(hn::BitCast(D16(), hn::InterleaveUpper(d, zero, mixed[i])), D16(),
                to + (2 * i + 1) * kLanesOf16);
    }
  }
}

// The kKeys floats at p again and again.
template <int kKeys>
HWY_INLINE V spread(const float* p) {
  if constexpr (kKeys == 2) {
    double both;
    std::memcpy(&both, p, sizeof both);
    return hn::BitCast(D16(), hn::Set(hn::Repartition<double, D16>(), both));
  }
  if constexpr (kKeys == 4) return hn::LoadDup128(D16(), p);
  return hn::Set(D16(), *p);
}

// For the second-level cache, whose misses more of wait at once.
HWY_INLINE void ask(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#else
  hwy::Prefetch(p);
#endif
}

template <class T, int kKeys>
void score_rows(const float* packed, int64_t heads, int64_t width, const void* const* key,
                int64_t n, int64_t known, float* s) {
  constexpr int kPer = 16 / sizeof(T);        // numbers of a row in 128 bits
  constexpr int kChunk = kPer * kSpans;       // of a row that are mixed at once
  constexpr int kUnits = kSpan / kKeys;       // numbers of all rows in 128 bits
  constexpr int64_t kStep = kGroups * kKeys;  // keys
  for (int64_t from = 0; from < n; from += kStep) {
    const T *row[kGroups][kKeys], *next[kGroups][kKeys];
    for (int64_t i = 0; i < kStep; ++i) {
      row[i / kKeys][i % kKeys] = static_cast<const T*>(key[HWY_MIN(from + i, n - 1)]);
      next[i / kKeys][i % kKeys] = static_cast<const T*>(key[HWY_MIN(from + kStep + i, known - 1)]);
    }
    V sum[kGroups];
#pragma GCC unroll 16
    for (int m = 0; m < kGroups; ++m) sum[m] = hn::Zero(D16());
    // A piece of the rows is mixed while the one before it is multiplied.
    HWY_ALIGN float mixed[2][kGroups][kChunk * kKeys];
    for (int m = 0; m < kGroups; ++m) interleave<T, kKeys>(row[m], 0, mixed[0][m]);
    int now = 0;
    for (int64_t k = 0; k < width; k += kChunk, now ^= 1)
      for (int span = 0; span < kSpans; ++span) {
        for (int m = span * kGroups / kSpans; m < (span + 1) * kGroups / kSpans; ++m) {
          if (k + kChunk < width) interleave<T, kKeys>(row[m], k + kChunk, mixed[now ^ 1][m]);
          for (int i = 0; i < kKeys; ++i) ask(next[m][i] + k);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kPer; ++r) {
          const V q = hn::LoadU(D16(), packed + (k + span * kPer + r) * 16);
          const int at = ((r / kUnits * kSpans + span) * kUnits + r % kUnits) * kKeys;
#pragma GCC unroll 16
          for (int m = 0; m < kGroups; ++m)
            sum[m] = fused_vec(q, spread<kKeys>(mixed[now][m] + at), sum[m]);
        }
      }
    HWY_ALIGN float out[kGroups][kLanesOf16];
#pragma GCC unroll 16
    for (int m = 0; m < kGroups; ++m) hn::Store(sum[m], D16(), out[m]);
    for (int64_t h = 0; h < heads; ++h)
      for (int m = 0; m < kGroups && from + m * kKeys < kBlock; ++m)
        std::memcpy(s + h * kBlock + from + m * kKeys, out[m] + h * kKeys, kKeys * sizeof(float));
  }
}

template <class T>
void score_type(const float* packed, int64_t heads, int64_t width, const void* const* key,
                int64_t n, int64_t known, float* s) {
  switch (keys_together(heads)) {
    case 4:
      return score_rows<T, 4>(packed, heads, width, key, n, known, s);
    case 2:
      return score_rows<T, 2>(packed, heads, width, key, n, known, s);
    default:
      return score_rows<T, 1>(packed, heads, width, key, n, known, s);
  }
}

void score(const float* packed, int64_t heads, int64_t width, const void* const* key, DType dtype,
           int64_t n, int64_t known, float* s) {
  if (dtype == DType::kF32) return score_type<float>(packed, heads, width, key, n, known, s);
  score_type<uint16_t>(packed, heads, width, key, n, known, s);
}

HWY_INLINE V load_numbers(const float* p) { return hn::LoadU(D16(), p); }
HWY_INLINE V load_numbers(const uint16_t* p) {
  const hn::Rebind<uint16_t, D16> d;
  return hn::BitCast(D16(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(d, p))));
}

template <class T, int kRows, int kVecs>
void weigh_tile(const float* p, const void* const* key, int64_t n, int64_t col, bool first,
                float* z, int64_t ld) {
  V sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i)
      sum[r][i] = first ? hn::Zero(D16()) : hn::LoadU(D16(), z + r * ld + col + i * kLanesOf16);
  for (int64_t k = 0; k < n; ++k) {
    const T* row = static_cast<const T*>(key[k]) + col;
    V v[kVecs];
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) v[i] = load_numbers(row + i * kLanesOf16);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V weight = hn::Set(D16(), p[r * kBlock + k]);
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) sum[r][i] = fused_vec(weight, v[i], sum[r][i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) hn::StoreU(sum[r][i], D16(), z + r * ld + col + i * kLanesOf16);
}

// Heads and vectors of columns whose sums stay in registers.
constexpr int kRowsMost = kLanesOf16 == 16 ? 8 : 4;
constexpr int vecs_of(int rows) { return kLanesOf16 == 16 ? (rows > 5 ? 3 : 4) : 2; }

template <class T, int kRows, int kVecs = vecs_of(kRows)>
void weigh_rows(const float* p, const void* const* key, int64_t n, int64_t col, int64_t cols,
                bool first, float* z, int64_t ld) {
  for (; col + kVecs * kLanesOf16 <= cols; col += kVecs * kLanesOf16)
    weigh_tile<T, kRows, kVecs>(p, key, n, col, first, z, ld);
  if constexpr (kVecs > 1)
    if (col < cols) weigh_rows<T, kRows, kVecs - 1>(p, key, n, col, cols, first, z, ld);
}

template <class T, int kRows = kRowsMost>
void weigh_type(const float* p, int64_t heads, const void* const* key, int64_t n, int64_t cols,
                bool first, float* z, int64_t ld) {
  for (; heads >= kRows; heads -= kRows, p += kRows * kBlock, z += kRows * ld)
    weigh_rows<T, kRows>(p, key, n, 0, cols, first, z, ld);
  if constexpr (kRows > 1)
    if (heads > 0) weigh_type<T, kRows - 1>(p, heads, key, n, cols, first, z, ld);
}

void weigh(const float* p, int64_t heads, const void* const* key, DType dtype, int64_t n,
           int64_t cols, bool first, float* z, int64_t ld) {
  if (dtype == DType::kF32) return weigh_type<float>(p, heads, key, n, cols, first, z, ld);
  weigh_type<uint16_t>(p, heads, key, n, cols, first, z, ld);
}

#endif  // not HWY_SCALAR

}  // namespace

const AttentionFew& make_attention_few() {
#if HWY_TARGET == HWY_SCALAR
  static constexpr AttentionFew kTable{};  // takes no heads
#else
  static constexpr AttentionFew kTable = {.max_heads = kLanesOf16,
                                          .step = 2 * kLanesOf16,
                                          .keys_together = &keys_together,
                                          .score = &score,
                                          .weigh = &weigh};
#endif
  return kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_few);

const AttentionFew& attention_few() { return HWY_DYNAMIC_DISPATCH(make_attention_few)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
