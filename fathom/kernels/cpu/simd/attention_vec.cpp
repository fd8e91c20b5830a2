#include "fathom/kernels/cpu/simd/attention_vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/attention_vec.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
using M = hn::Mask<D>;
constexpr int kLanes = HWY_LANES(float) < 16 ? HWY_LANES(float) : 16;
constexpr int kParts = 16 / kLanes;     // vectors that make 16 logical lanes
constexpr int kVecs = kBlock / kLanes;  // vectors of a block
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

HWY_INLINE V fused(V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  return hn::Set(D(), std::fma(hn::GetLane(a), hn::GetLane(b), hn::GetLane(c)));
#endif
}

// e^x, exact 1 at 0 and exact 0 below -87.3; for x up to 88. Cephes' polynomial.
HWY_INLINE V exp16(V x) {
  const D d;
  const hn::RebindToSigned<D> di;
  const M tiny = hn::Lt(x, hn::Set(d, -87.3f));
  const V n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  V r = fused(n, hn::Set(d, -0.693359375f), x);
  r = fused(n, hn::Set(d, 2.12194440e-4f), r);
  V p = hn::Set(d, 1.9875691500e-4f);
  p = fused(p, r, hn::Set(d, 1.3981999507e-3f));
  p = fused(p, r, hn::Set(d, 8.3334519073e-3f));
  p = fused(p, r, hn::Set(d, 4.1665795894e-2f));
  p = fused(p, r, hn::Set(d, 1.6666665459e-1f));
  p = fused(p, r, hn::Set(d, 5.0000001201e-1f));
  p = fused(p, hn::Mul(r, r), hn::Add(r, hn::Set(d, 1.0f)));
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenZeroElse(tiny, hn::Mul(p, hn::BitCast(d, power)));
}

// log x for normal x > 0. Cephes' polynomial.
HWY_INLINE V log16(V x) {
  const D d;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, x);
  auto exponent = hn::Sub(hn::ShiftRight<23>(bits), hn::Set(di, 126));
  V m = hn::BitCast(d, hn::Or(hn::And(bits, hn::Set(di, 0x007FFFFF)), hn::Set(di, 0x3F000000)));
  const M low = hn::Lt(m, hn::Set(d, 0.707106781186547524f));
  V e = hn::ConvertTo(d, exponent);
  e = hn::Sub(e, hn::IfThenElseZero(low, hn::Set(d, 1.0f)));
  m = hn::Sub(hn::Add(m, hn::IfThenElseZero(low, m)), hn::Set(d, 1.0f));
  const V z = hn::Mul(m, m);
  V p = hn::Set(d, 7.0376836292e-2f);
  for (const float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = fused(p, m, hn::Set(d, c));
  p = hn::Mul(hn::Mul(p, m), z);
  p = fused(e, hn::Set(d, -2.12194440e-4f), p);
  p = fused(z, hn::Set(d, -0.5f), p);
  return fused(e, hn::Set(d, 0.693359375f), hn::Add(m, p));
}

// Lanes of vector `part` of a block.
HWY_INLINE M lanes_of(uint64_t mask, int part) {
  const uint64_t bits = mask >> (part * kLanes);
  uint8_t bytes[8];
  std::memcpy(bytes, &bits, sizeof bits);
  return hn::LoadMaskBits(D(), bytes);
}

// The sum of 16 logical lanes: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
HWY_INLINE float tree(const V (&v)[kParts]) {
  HWY_ALIGN float x[16];
  const D d;
  for (int i = 0; i < kParts; ++i) hn::Store(v[i], d, x + i * kLanes);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// The 64 numbers v: per lane (0 + 1) + (2 + 3), then the tree.
HWY_INLINE float sum_block(const V (&v)[kVecs]) {
  V part[kParts];
  for (int i = 0; i < kParts; ++i)
    part[i] = hn::Add(hn::Add(v[i], v[i + kParts]), hn::Add(v[i + 2 * kParts], v[i + 3 * kParts]));
  return tree(part);
}

HWY_INLINE float max_block(const V (&v)[kVecs]) {
  V top = v[0];
#pragma GCC unroll 16
  for (int i = 1; i < kVecs; ++i) top = hn::Max(top, v[i]);
  return hn::GetLane(hn::MaxOfLanes(D(), top));
}

float exp1(float x) { return hn::GetLane(exp16(hn::Set(D(), x))); }
float log1(float x) { return hn::GetLane(log16(hn::Set(D(), x))); }

void softmax_group(float* s, const uint64_t* mask, int64_t rows, float scale, float* max,
                   float* sum, float* alpha) {
  const D d;
  HWY_ALIGN float change[16] = {};
  for (int64_t r = 0; r < rows; ++r) {
    V v[kVecs];
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      const V x = hn::Mul(hn::LoadU(d, s + r * kBlock + i * kLanes), hn::Set(d, scale));
      v[i] = hn::IfThenElse(lanes_of(mask[r], i), x, hn::Set(d, kMinusInf));
      hn::StoreU(v[i], d, s + r * kBlock + i * kLanes);
    }
    const float before = max[r];
    max[r] = std::max(before, max_block(v));
    change[r] = before == max[r] ? 0 : before - max[r];
  }
  for (int i = 0; i < kParts; ++i) {
    const V a = exp16(hn::Load(d, change + i * kLanes));
    hn::Store(a, d, change + i * kLanes);
  }
  for (int64_t r = 0; r < rows; ++r) {
    alpha[r] = change[r];
    V v[kVecs];
    const V top = hn::Set(d, max[r] == kMinusInf ? 0 : max[r]);
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      v[i] = exp16(hn::Sub(hn::LoadU(d, s + r * kBlock + i * kLanes), top));
      hn::StoreU(v[i], d, s + r * kBlock + i * kLanes);
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
  const D d;
  for (int64_t r = 0; r < rows; ++r) {
    if (alpha[r] == 1) continue;
    const V a = hn::Set(d, alpha[r]);
    for (int64_t c = 0; c < cols; c += kLanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, z + r * ld + c), a), d, z + r * ld + c);
  }
}

void merge_rows(float* z, const float* z2, int64_t ld, int64_t cols, int64_t rows, float* max,
                float* sum, const float* max2, const float* sum2) {
  const D d;
  for (int64_t r = 0; r < rows; ++r) {
    if (sum2[r] == 0) continue;
    const bool first = sum[r] == 0;
    const float top = first ? max2[r] : std::max(max[r], max2[r]);
    const float a = first ? 0 : exp1(max[r] - top), b = exp1(max2[r] - top);
    max[r] = top;
    sum[r] = first ? sum2[r] : sum[r] * a + sum2[r] * b;
    const V va = hn::Set(d, a), vb = hn::Set(d, b);
    for (int64_t c = 0; c < cols; c += kLanes) {
      const V y = hn::LoadU(d, z2 + r * ld + c);
      const V both = fused(hn::LoadU(d, z + r * ld + c), va, hn::Mul(y, vb));
      hn::StoreU(first ? y : both, d, z + r * ld + c);
    }
  }
}

void divide(const float* z, float sum, int64_t cols, float* out) {
  const D d;
  const V s = hn::Set(d, sum);
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) hn::StoreU(hn::Div(hn::LoadU(d, z + c), s), d, out + c);
  for (; c < cols; ++c) out[c] = z[c] / sum;
}

void softmax_backward(float* s, float* dp, const uint64_t* mask, int64_t rows, float scale,
                      const float* lse, const float* delta) {
  const D d;
  const V vscale = hn::Set(d, scale);
  for (int64_t r = 0; r < rows; ++r) {
    const V vlse = hn::Set(d, lse[r]), vdelta = hn::Set(d, delta[r]);
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      float *ps = s + r * kBlock + i * kLanes, *pd = dp + r * kBlock + i * kLanes;
      const M seen = lanes_of(mask[r], i);
      const V p = hn::IfThenElseZero(seen, exp16(hn::Sub(hn::Mul(hn::LoadU(d, ps), vscale), vlse)));
      const V g = hn::Mul(hn::Mul(p, hn::Sub(hn::LoadU(d, pd), vdelta)), vscale);
      hn::StoreU(p, d, ps);
      hn::StoreU(hn::IfThenElseZero(seen, g), d, pd);
    }
  }
}

float dot(const float* a, const float* b, int64_t n) {
  const D d;
  V sum[kParts];
  for (int i = 0; i < kParts; ++i) sum[i] = hn::Zero(d);
  HWY_ALIGN float ta[16] = {}, tb[16] = {};
  for (int64_t c = 0; c < n; c += 16) {
    const float *pa = a + c, *pb = b + c;
    if (n - c < 16) {
      std::copy(pa, a + n, ta);
      std::copy(pb, b + n, tb);
      pa = ta;
      pb = tb;
    }
    for (int i = 0; i < kParts; ++i)
      sum[i] = fused(hn::LoadU(d, pa + i * kLanes), hn::LoadU(d, pb + i * kLanes), sum[i]);
  }
  return tree(sum);
}

void add_probabilities(const float* s, int64_t heads, uint64_t mask, float scale, const float* lse,
                       float* out) {
  const D d;
  V sum[kVecs];
#pragma GCC unroll 16
  for (int i = 0; i < kVecs; ++i) sum[i] = hn::Zero(d);
  for (int64_t h = 0; h < heads; ++h) {
    const V vlse = hn::Set(d, lse[h]);
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      const V x = hn::Mul(hn::LoadU(d, s + h * kBlock + i * kLanes), hn::Set(d, scale));
      sum[i] = hn::Add(sum[i], exp16(hn::Sub(x, vlse)));
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kVecs; ++i)
    hn::StoreU(hn::IfThenElseZero(lanes_of(mask, i), sum[i]), d, out + i * kLanes);
}

void relu_combine(const float* dots, int64_t heads, const float* w, float* out) {
  const D d;
  const V zero = hn::Zero(d);
  V sum[kVecs];
#pragma GCC unroll 16
  for (int i = 0; i < kVecs; ++i) sum[i] = zero;
  for (int64_t h = 0; h < heads; ++h) {
    const V vw = hn::Set(d, w[h]);
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      const V x = hn::LoadU(d, dots + h * kBlock + i * kLanes);
      sum[i] = fused(vw, hn::IfThenZeroElse(hn::Le(x, zero), x), sum[i]);  // a NaN stays one
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kVecs; ++i) hn::StoreU(sum[i], d, out + i * kLanes);
}

void relu_backward(float* dots, int64_t heads, uint64_t mask, const float* w, const float* g,
                   float* dw) {
  const D d;
  const V zero = hn::Zero(d);
  for (int64_t h = 0; h < heads; ++h) {
    const V vw = hn::Set(d, w[h]);
    V products[kVecs];
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      float* p = dots + h * kBlock + i * kLanes;
      const V x = hn::LoadU(d, p), vg = hn::LoadU(d, g + i * kLanes);
      const M open = hn::And(lanes_of(mask, i), hn::Gt(x, zero));
      products[i] = hn::IfThenElseZero(open, hn::Mul(vg, x));
      hn::StoreU(hn::IfThenElseZero(open, hn::Mul(vg, vw)), d, p);
    }
    dw[h] += sum_block(products);
  }
}

float kl_row(float* p, float* scores, const uint64_t* mask, int64_t blocks, bool gradient,
             float grad_scale) {
  const D d;
  float top = kMinusInf, total = 0;
  V v[kVecs];
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i)
      v[i] = hn::IfThenElse(lanes_of(mask[b], i), hn::LoadU(d, scores + b * kBlock + i * kLanes),
                            hn::Set(d, kMinusInf));
    top = std::max(top, max_block(v));
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) v[i] = hn::LoadU(d, p + b * kBlock + i * kLanes);
    total += sum_block(v);
  }
  float sum = 0;
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      const V x = hn::Sub(hn::LoadU(d, scores + b * kBlock + i * kLanes), hn::Set(d, top));
      v[i] = hn::IfThenElseZero(lanes_of(mask[b], i), exp16(x));
    }
    sum += sum_block(v);
  }
  const float lse = top + log1(sum);
  const V smallest = hn::Set(d, std::numeric_limits<float>::min());
  float kl = 0;
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; ++i) {
      float *pp = p + b * kBlock + i * kLanes, *ps = scores + b * kBlock + i * kLanes;
      const M seen = lanes_of(mask[b], i);
      const V share = hn::Div(hn::LoadU(d, pp), hn::Set(d, total));
      const V logp = hn::Sub(hn::LoadU(d, ps), hn::Set(d, lse));
      const V term = hn::Mul(share, hn::Sub(log16(hn::Max(share, smallest)), logp));
      v[i] = hn::IfThenElseZero(hn::And(seen, hn::Gt(share, smallest)), term);
      hn::StoreU(hn::IfThenElseZero(seen, share), d, pp);
      if (gradient) {
        const V g = hn::Mul(hn::Set(d, grad_scale), hn::Sub(exp16(logp), share));
        hn::StoreU(hn::IfThenElseZero(seen, g), d, ps);
      }
    }
    kl += sum_block(v);
  }
  return kl;
}

uint64_t above(const float* s, float threshold) {
  const D d;
  uint64_t mask = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kVecs; ++i) {
    uint8_t bytes[8] = {};
    hn::StoreMaskBits(d, hn::Gt(hn::LoadU(d, s + i * kLanes), hn::Set(d, threshold)), bytes);
    uint64_t bits;
    std::memcpy(&bits, bytes, sizeof bits);
    mask |= bits << (i * kLanes);
  }
  return mask;
}

void decode_bf16(const uint16_t* src, int64_t n, float* dst) {
  const D d;
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto wide = hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, src + i)));
    hn::StoreU(hn::BitCast(d, wide), d, dst + i);
  }
  for (; i < n; ++i) {
    const uint32_t bits = uint32_t{src[i]} << 16;
    std::memcpy(dst + i, &bits, sizeof bits);
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
      .above = &above,
      .decode_bf16 = &decode_bf16,
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
