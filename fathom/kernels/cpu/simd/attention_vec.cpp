#include "fathom/kernels/cpu/simd/attention_vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_vec.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

constexpr int kParts = kBlock / 16;  // of a block
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

#define FATHOM_PARTS _Pragma("GCC unroll 4") for (int i = 0; i < kParts; ++i)

// Sixteen bits of a row's mask.
HWY_INLINE M16 part_of(uint64_t mask, int part) {
  uint64_t bits = mask >> (16 * part);
  M16 out;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i, bits >>= kLanesOf16) {
    uint8_t bytes[8];
    std::memcpy(bytes, &bits, sizeof bits);
    out.m[i] = hn::LoadMaskBits(D16(), bytes);
  }
  return out;
}

HWY_INLINE uint64_t bits_of(M16 m) {
  uint64_t out = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) {
    uint8_t bytes[8] = {};
    hn::StoreMaskBits(D16(), m.m[i], bytes);
    uint64_t bits;
    std::memcpy(&bits, bytes, sizeof bits);
    out |= bits << (i * kLanesOf16);
  }
  return out;
}

HWY_INLINE V16 zero_unless(M16 m, V16 a) {
  V16 out;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) out.v[i] = hn::IfThenElseZero(m.m[i], a.v[i]);
  return out;
}
HWY_INLINE M16 both(M16 a, M16 b) {
  M16 out;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) out.m[i] = hn::And(a.m[i], b.m[i]);
  return out;
}

// e^x for softmax: x at most a little above 0; exact 1 at 0, exact 0 below -87.3; NaN stays NaN.
// Two thirds of the work of exp16.
HWY_INLINE V16 exp_softmax(V16 x) {
  const float kRound = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
  const V16 shifted = fused(x, splat(1.44269504f), splat(kRound));
  const V16 n = shifted - splat(kRound);
  V16 r = fused(n, splat(-0.693145751953125f), x);
  r = fused(n, splat(-1.428606765330187e-06f), r);
  V16 p = fused(r, splat(1.9875691500e-4f), splat(1.3981999507e-3f));  // Cephes expf
  p = fused(p, r, splat(8.3334519073e-3f));
  p = fused(p, r, splat(4.1665795894e-2f));
  p = fused(p, r, splat(1.6666665459e-1f));
  p = fused(p, r, splat(5.0000001201e-1f));
  p = fused(p, r * r, r) + splat(1);
  const DI16 di;
  V16 out;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) {
    const auto power = hn::ShiftLeft<23>(hn::BitCast(di, shifted.v[i]));
    const auto scaled = hn::BitCast(D16(), hn::Add(hn::BitCast(di, p.v[i]), power));
    out.v[i] = hn::IfThenZeroElse(hn::Lt(x.v[i], hn::Set(D16(), -87.3f)), scaled);
  }
  return out;
}

// log x for normal x > 0, Cephes logf.
HWY_INLINE V16 log16(V16 x) {
  const DI16 di;
  V16 m, e;
#pragma GCC unroll 16
  for (int i = 0; i < kVecsOf16; ++i) {
    const auto bits = hn::BitCast(di, x.v[i]);
    e.v[i] = hn::ConvertTo(D16(), hn::Sub(hn::ShiftRight<23>(bits), hn::Set(di, 126)));
    m.v[i] =
        hn::BitCast(D16(), hn::Or(hn::And(bits, hn::Set(di, 0x007FFFFF)), hn::Set(di, 0x3F000000)));
  }
  const M16 low = splat(0.707106781186547524f) > m;
  e = e - zero_unless(low, splat(1));
  m = m + zero_unless(low, m) - splat(1);
  const V16 z = m * m;
  V16 p = splat(7.0376836292e-2f);
  p = fused(p, m, splat(-1.1514610310e-1f));
  p = fused(p, m, splat(1.1676998740e-1f));
  p = fused(p, m, splat(-1.2420140846e-1f));
  p = fused(p, m, splat(1.4249322787e-1f));
  p = fused(p, m, splat(-1.6668057665e-1f));
  p = fused(p, m, splat(2.0000714765e-1f));
  p = fused(p, m, splat(-2.4999993993e-1f));
  p = fused(p, m, splat(3.3333331174e-1f));
  p = fused(e, splat(-2.12194440e-4f), p * m * z);
  p = fused(z, splat(-0.5f), p);
  return fused(e, splat(0.693359375f), m + p);
}

HWY_INLINE float first_lane(V16 a) { return hn::GetLane(a.v[0]); }

// Per lane (0 + 1) + (2 + 3), then the tree.
HWY_INLINE float sum_block(const V16 (&v)[kParts]) { return sum16((v[0] + v[1]) + (v[2] + v[3])); }
HWY_INLINE float largest_block(const V16 (&v)[kParts]) {
  return largest16(max16(max16(v[0], v[1]), max16(v[2], v[3])));
}

// scale * s, -inf where masked
HWY_INLINE void masked_scores(const float* s, uint64_t mask, float scale, V16 (&v)[kParts]) {
  FATHOM_PARTS v[i] = load16(s + 16 * i) * splat(scale);
  if (mask == ~uint64_t{0}) return;
  FATHOM_PARTS v[i] = select(part_of(mask, i), v[i], splat(kMinusInf));
}

void softmax_group(float* s, const uint64_t* mask, int64_t rows, float scale, float* max,
                   float* sum, float* alpha) {
  HWY_ALIGN float change[16] = {};
  V16 v[kParts];
  for (int64_t r = 0; r < rows; ++r) {
    masked_scores(s + r * kBlock, mask[r], scale, v);
    const float before = max[r];
    max[r] = std::max(before, largest_block(v));
    change[r] = before == max[r] ? 0 : before - max[r];
  }
  store16(exp_softmax(load16(change)), change);
  for (int64_t r = 0; r < rows; ++r) {
    alpha[r] = change[r];
    masked_scores(s + r * kBlock, mask[r], scale, v);
    const V16 top = splat(max[r] == kMinusInf ? 0 : max[r]);
    FATHOM_PARTS {
      v[i] = exp_softmax(v[i] - top);
      store16(v[i], s + r * kBlock + 16 * i);
    }
    sum[r] = sum[r] * alpha[r] + sum_block(v);
  }
}

void softmax_block(float* s, const uint64_t* mask, int64_t rows, float scale, float* max,
                   float* sum, float* alpha) {
  for (int64_t r = 0; r < rows; r += 16)
    softmax_group(s + r * kBlock, mask + r, std::min<int64_t>(16, rows - r), scale, max + r,
                  sum + r, alpha + r);
}

void scale_rows(float* z, int64_t ld, int64_t cols, int64_t rows, const float* alpha) {
  for (int64_t r = 0; r < rows; ++r) {
    if (alpha[r] == 1) continue;
    for (float* p = z + r * ld; p < z + r * ld + cols; p += 16)
      store16(load16(p) * splat(alpha[r]), p);
  }
}

void merge_rows(float* z, const float* z2, int64_t ld, int64_t cols, int64_t rows, float* max,
                float* sum, const float* max2, const float* sum2) {
  for (int64_t r = 0; r < rows; ++r) {
    if (sum2[r] == 0) continue;
    if (sum[r] == 0) {
      max[r] = max2[r];
      sum[r] = sum2[r];
      std::copy_n(z2 + r * ld, cols, z + r * ld);
      continue;
    }
    const float top = std::max(max[r], max2[r]);
    const V16 a = exp_softmax(splat(max[r] - top)), b = exp_softmax(splat(max2[r] - top));
    max[r] = top;
    sum[r] = sum[r] * first_lane(a) + sum2[r] * first_lane(b);
    for (int64_t c = r * ld; c < r * ld + cols; c += 16)
      store16(fused(load16(z + c), a, load16(z2 + c) * b), z + c);
  }
}

void divide(const float* z, float sum, int64_t cols, float* out) {
  sweep(cols, [&](int64_t i, auto part)
                  HWY_ATTR { store16(load16(z + i, part) / splat(sum), out + i, part); });
}

void softmax_backward(float* s, float* dp, const uint64_t* mask, int64_t rows, float scale,
                      const float* lse, const float* delta) {
  for (int64_t r = 0; r < rows; ++r) {
    FATHOM_PARTS {
      float *ps = s + r * kBlock + 16 * i, *pd = dp + r * kBlock + 16 * i;
      V16 p = exp_softmax(load16(ps) * splat(scale) - splat(lse[r]));
      V16 g = p * (load16(pd) - splat(delta[r])) * splat(scale);
      if (mask[r] != ~uint64_t{0}) {
        const M16 seen = part_of(mask[r], i);
        p = zero_unless(seen, p);
        g = zero_unless(seen, g);
      }
      store16(p, ps);
      store16(g, pd);
    }
  }
}

float dot(const float* a, const float* b, int64_t n) {
  V16 sum = zero16();
  sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { sum = fused(load16(a + i, part), load16(b + i, part), sum); });
  return sum16(sum);
}

void add_probabilities(const float* s, int64_t heads, uint64_t mask, float scale, const float* lse,
                       float* out) {
  V16 sum[kParts];
  FATHOM_PARTS sum[i] = zero16();
  for (int64_t h = 0; h < heads; ++h, s += kBlock)
    FATHOM_PARTS sum[i] = sum[i] + exp_softmax(load16(s + 16 * i) * splat(scale) - splat(lse[h]));
  FATHOM_PARTS store16(zero_unless(part_of(mask, i), sum[i]), out + 16 * i);
}

void relu_combine(const float* dots, int64_t heads, const float* w, float* out) {
  V16 sum[kParts];
  FATHOM_PARTS sum[i] = zero16();
  for (int64_t h = 0; h < heads; ++h, dots += kBlock) FATHOM_PARTS {
      const V16 x = load16(dots + 16 * i);
      sum[i] = fused(splat(w[h]), select(zero16() >= x, zero16(), x), sum[i]);  // a NaN stays one
    }
  FATHOM_PARTS store16(sum[i], out + 16 * i);
}

void relu_backward(float* dots, int64_t heads, uint64_t mask, const float* w, const float* g,
                   float* dw) {
  for (int64_t h = 0; h < heads; ++h, dots += kBlock) {
    V16 products[kParts];
    FATHOM_PARTS {
      const V16 x = load16(dots + 16 * i), d = load16(g + 16 * i);
      const M16 open = both(part_of(mask, i), x > zero16());
      products[i] = zero_unless(open, d * x);
      store16(zero_unless(open, d * splat(w[h])), dots + 16 * i);
    }
    dw[h] += sum_block(products);
  }
}

float kl_row(float* p, float* scores, const uint64_t* mask, int64_t blocks, bool gradient,
             float grad_scale) {
  float top = kMinusInf, total = 0, sum = 0, kl = 0;
  V16 v[kParts];
  for (int64_t b = 0; b < blocks; ++b) {
    masked_scores(scores + b * kBlock, mask[b], 1, v);
    top = std::max(top, largest_block(v));
    FATHOM_PARTS v[i] = load16(p + b * kBlock + 16 * i);
    total += sum_block(v);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    masked_scores(scores + b * kBlock, mask[b], 1, v);
    FATHOM_PARTS v[i] = exp_softmax(v[i] - splat(top));
    sum += sum_block(v);
  }
  const V16 lse = splat(top) + log16(splat(sum));
  const V16 smallest = splat(std::numeric_limits<float>::min());
  const V16 share_of = splat(1) / splat(total);
  for (int64_t b = 0; b < blocks; ++b) {
    FATHOM_PARTS {
      float *pp = p + b * kBlock + 16 * i, *ps = scores + b * kBlock + 16 * i;
      const M16 seen = part_of(mask[b], i);
      const V16 share = load16(pp) * share_of, logp = load16(ps) - lse;
      const V16 term = share * (log16(max16(share, smallest)) - logp);
      v[i] = zero_unless(both(seen, share > smallest), term);
      store16(zero_unless(seen, share), pp);
      if (gradient) store16(zero_unless(seen, splat(grad_scale) * (exp_softmax(logp) - share)), ps);
    }
    kl += sum_block(v);
  }
  return kl;
}

using U16 = hn::RebindToUnsigned<D16>;

HWY_INLINE void ask_ahead(const void* const* src, int64_t i, int64_t n, int64_t bytes) {
  constexpr int64_t kAhead = 4;
  if (i + kAhead >= n) return;
  const char* p = static_cast<const char*>(src[i + kAhead]);
  for (int64_t b = 0; b < bytes; b += 64) hwy::Prefetch(p + b);
}

void gather_f32(const void* const* src, int64_t n, int64_t width, float* dst, int64_t ld) {
  for (int64_t r = 0; r < n; ++r) {
    ask_ahead(src, r, n, width * 4);
    const auto* from = static_cast<const float*>(src[r]);
    float* to = dst + r * ld;
    sweep(width,
          [&](int64_t i, auto part) HWY_ATTR { store16(load16(from + i, part), to + i, part); });
  }
}

void widen_bf16(const uint16_t* from, int64_t width, float* to) {
  const hn::Rebind<uint16_t, D16> d16;
  const U16 d32;
  int64_t i = 0;
  for (; i + kLanesOf16 <= width; i += kLanesOf16) {
    const auto wide = hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, from + i)));
    hn::StoreU(hn::BitCast(D16(), wide), D16(), to + i);
  }
  for (; i < width; ++i) {
    const uint32_t bits = uint32_t{from[i]} << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

void gather_bf16(const void* const* src, int64_t n, int64_t width, float* dst, int64_t ld) {
  for (int64_t r = 0; r < n; ++r) {
    ask_ahead(src, r, n, width * 2);
    widen_bf16(static_cast<const uint16_t*>(src[r]), width, dst + r * ld);
  }
}

// Shifted to the place of an f32's exponent and mantissa, a code is its value times 2^-120. Values
// below the codes' normal numbers would be subnormal there: they are formed as whole numbers.
void decode_e4m3(const uint8_t* from, int64_t n, float scale, float* to) {
  const D16 d;
  const U16 du;
  const hn::RebindToSigned<D16> di;
  const hn::Rebind<uint8_t, D16> d8;
  const auto factor = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + kLanesOf16 <= n; i += kLanesOf16) {
    const auto code = hn::PromoteTo(du, hn::LoadU(d8, from + i));
    const auto sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(du, 0x80u)));
    const auto size = hn::And(code, hn::Set(du, 0x7Fu));
    const auto normal = hn::BitCast(d, hn::Add(hn::ShiftLeft<20>(size), hn::Set(du, 120u << 23)));
    const auto small = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, size)), hn::Set(d, 0x1p-9f));
    const auto is_small = hn::RebindMask(d, hn::Lt(hn::BitCast(di, size), hn::Set(di, 8)));
    const auto value = hn::BitCast(du, hn::IfThenElse(is_small, small, normal));
    hn::StoreU(hn::Mul(hn::BitCast(d, hn::Or(value, sign)), factor), d, to + i);
  }
  for (; i < n; ++i) to[i] = to_float(e4m3{from[i]}) * scale;
}

void gather_e4m3(const void* const* src, int64_t n, int64_t width, int64_t coded, float* dst,
                 int64_t ld) {
  for (int64_t r = 0; r < n; ++r) {
    ask_ahead(src, r, n, coded_row_bytes(coded, width - coded));
    const auto* from = static_cast<const uint8_t*>(src[r]);
    const auto* scale = reinterpret_cast<const float*>(from + coded_scales_at(coded));
    float* to = dst + r * ld;
    for (int64_t k = 0; k < coded; k += 128)
      decode_e4m3(from + k, coded - k < 128 ? coded - k : 128, scale[k / 128], to + k);
    widen_bf16(reinterpret_cast<const uint16_t*>(from + coded_rest_at(coded)), width - coded,
               to + coded);
  }
}

void scatter_add(const float* src, int64_t ld, int64_t n, int64_t width, float* const* dst) {
  for (int64_t r = 0; r < n; ++r) {
    const float* from = src + r * ld;
    float* to = dst[r];
    sweep(width, [&](int64_t i, auto part) HWY_ATTR {
      store16(load16(to + i, part) + load16(from + i, part), to + i, part);
    });
  }
}

}  // namespace

const AttentionVec& make_attention_vec() {
  static constexpr AttentionVec kTable = {
      .softmax_block = &softmax_block,
      .scale_rows = &scale_rows,
      .merge_rows = &merge_rows,
      .divide = &divide,
      .softmax_backward = &softmax_backward,
      .dot = &dot,
      .add_probabilities = &add_probabilities,
      .relu_combine = &relu_combine,
      .relu_backward = &relu_backward,
      .kl_row = &kl_row,
      .gather_f32 = &gather_f32,
      .gather_bf16 = &gather_bf16,
      .gather_e4m3 = &gather_e4m3,
      .scatter_add = &scatter_add,
  };
  return kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_attention_vec);

const AttentionVec& attention_vec() { return HWY_DYNAMIC_DISPATCH(make_attention_vec)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
