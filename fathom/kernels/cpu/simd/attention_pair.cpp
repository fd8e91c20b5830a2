#include "fathom/kernels/cpu/simd/attention_pair.h"

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_pair.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX3

// Sixteen positions; where there are no more, `none`.
HWY_INLINE __m512i positions(const Selected& sel, int64_t at, int32_t none) {
  const auto seen = static_cast<__mmask16>(low_bits(sel.size - at));
  return _mm512_mask_loadu_epi32(_mm512_set1_epi32(none), seen, sel.pos + at);
}

// Which of a are in b and which of b in a: b is turned past a. Sixteen bits throughout: GCC 12 puts
// a mask away as two bytes and reads four back where more are asked for.
template <int kTurn = 0>
HWY_INLINE void compare(__m512i a, __m512i b, uint16_t* of_a, uint16_t* of_b) {
  const uint16_t same = _mm512_cmpeq_epi32_mask(a, _mm512_alignr_epi32(b, b, kTurn));
  *of_a |= same;
  *of_b |= std::rotl(same, kTurn);
  if constexpr (kTurn < 15) compare<kTurn + 1>(a, b, of_a, of_b);
}

int64_t find_shared(const Selected (&sel)[2], int64_t least, uint64_t* const (&bits)[2]) {
  const Selected &a = sel[0], &b = sel[1];
  int64_t n = 0;
  for (const int t : {0, 1}) std::fill_n(bits[t], sel[t].size / kBlock + 1, uint64_t{0});
  for (int64_t i = 0, j = 0; i < a.size && j < b.size && n + a.size - i >= least;) {
    uint16_t of_a = 0, of_b = 0;
    compare(positions(a, i, -1), positions(b, j, -2), &of_a, &of_b);
    bits[0][i / kBlock] |= uint64_t{of_a} << i % kBlock;
    bits[1][j / kBlock] |= uint64_t{of_b} << j % kBlock;
    n += std::popcount(of_a);
    const int32_t last_a = a.pos[std::min(i + 16, a.size) - 1],
                  last_b = b.pos[std::min(j + 16, b.size) - 1];
    i += last_a <= last_b ? 16 : 0;
    j += last_b <= last_a ? 16 : 0;
  }
  return n;
}

void split(const void* const* key, int64_t n, const uint64_t* bits, const void** both,
           const void** own) {
  for (int64_t i = 0; i < n; i += 8) {
    const auto of_both = static_cast<__mmask8>(bits[i / kBlock] >> i % kBlock);
    const __m512i x = _mm512_loadu_si512(key + i);
    _mm512_storeu_si512(both, _mm512_maskz_compress_epi64(of_both, x));
    _mm512_storeu_si512(own, _mm512_maskz_compress_epi64(static_cast<__mmask8>(~of_both), x));
    const int num_both = std::popcount(static_cast<uint8_t>(of_both));
    both += num_both;
    own += 8 - num_both;
  }
}

void lay_out(const float* both, const float* own, int64_t ld, int64_t heads, uint64_t bits,
             float* s) {
  for (int64_t part = 0; part < kBlock; part += 16, bits >>= 16) {
    const auto of_both = static_cast<__mmask16>(bits), of_own = static_cast<__mmask16>(~bits);
    for (int64_t h = 0; h < heads; ++h) {
      const __m512 x = _mm512_maskz_expand_ps(of_both, _mm512_loadu_ps(both + h * ld));
      const __m512 y = _mm512_mask_expand_ps(x, of_own, _mm512_loadu_ps(own + h * ld));
      _mm512_storeu_ps(s + h * kBlock + part, y);
    }
    const int num_both = std::popcount(static_cast<uint16_t>(of_both));
    both += num_both;
    own += 16 - num_both;
  }
}

#endif  // AVX3

}  // namespace

const AttentionPair* make_attention_pair() {
#if HWY_TARGET == HWY_AVX3
  static constexpr AttentionPair kTable = {
      .find_shared = &find_shared, .split = &split, .lay_out = &lay_out};
  return &kTable;
#else
  // With narrower vectors, rows are turned anew for eight heads (attention_few.cpp).
  return nullptr;
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_pair);

const AttentionPair* attention_pair() { return HWY_DYNAMIC_DISPATCH(make_attention_pair)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
