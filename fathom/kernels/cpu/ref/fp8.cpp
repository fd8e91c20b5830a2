// Reference FP8 simulation: 1 x 128 activation quantisation, Hadamard rotation, bf16 rounding
// (model spec 4.1, 4.2).
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "fathom/kernels/cpu/ref/real.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

constexpr int64_t kGroup = 128;
constexpr float kLargest = 448, kSmallestMax = 1e-4f;

// Rounds a positive f32 up to a power of two.
float round_up_to_power(float s) {
  const uint32_t bits = std::bit_cast<uint32_t>(s);
  const uint32_t exponent = (bits >> 23 & 0xFFu) + ((bits & 0x7FFFFFu) != 0 ? 1 : 0);
  return std::bit_cast<float>(std::clamp(exponent, 1u, 254u) << 23);
}

float scale_of(float amax, ScaleFormat format) {
  const float scale = amax * (1.0f / kLargest);
  return format == ScaleFormat::kUe8m0 ? round_up_to_power(scale) : scale;
}

template <class R>
void quantise_group(const ActQuant& a, int64_t t, int64_t group) {
  const int64_t begin = group * kGroup, end = std::min(begin + kGroup, a.x.dim[1]);
  const R* x = row_of<R>(a.x, t);
  float amax = kSmallestMax;
  for (int64_t i = begin; i < end; ++i) amax = std::max(amax, static_cast<float>(std::abs(x[i])));
  const float scale = scale_of(amax, a.format);
  for (int64_t i = begin; i < end; ++i) {
    const e4m3 code = to_e4m3(static_cast<float>(x[i] / static_cast<R>(scale)));
    if (a.codes) static_cast<uint8_t*>(a.codes.data)[t * a.codes.stride[0] + i] = code.bits;
    if (a.y) row_of<R>(a.y, t)[i] = static_cast<R>(to_float(code)) * static_cast<R>(scale);
  }
  if (a.scales) row_of<float>(a.scales, t)[group] = scale;
}

}  // namespace

void act_quant(const Exec&, const ActQuant& a) {
  with_real(a.x.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < a.x.dim[0]; ++t)
      for (int64_t group = 0; group * kGroup < a.x.dim[1]; ++group) quantise_group<R>(a, t, group);
  });
}

void weight_quant(const Exec&, const WeightQuant& a) {
  const int64_t N = a.w.dim[0], K = a.w.dim[1];
  with_real(a.w.dtype, [&]<class R>(R) {
    for (int64_t n0 = 0; n0 < N; n0 += kGroup)
      for (int64_t k0 = 0; k0 < K; k0 += kGroup) {
        const int64_t n1 = std::min(n0 + kGroup, N), k1 = std::min(k0 + kGroup, K);
        float amax = kSmallestMax;
        for (int64_t n = n0; n < n1; ++n)
          for (int64_t k = k0; k < k1; ++k)
            amax = std::max(amax, static_cast<float>(std::abs(row_of<R>(a.w, n)[k])));
        const float scale = scale_of(amax, a.format);
        row_of<float>(a.scales, n0 / kGroup)[k0 / kGroup] = scale;
        for (int64_t n = n0; n < n1; ++n)
          for (int64_t k = k0; k < k1; ++k)
            static_cast<uint8_t*>(a.codes.data)[n * a.codes.stride[0] + k] =
                to_e4m3(static_cast<float>(row_of<R>(a.w, n)[k] / static_cast<R>(scale))).bits;
      }
  });
}

void hadamard(const Exec&, const Hadamard& a) {
  const int64_t T = a.x.dim[0], D = a.x.dim[1];
  FM_CHECK(D == 0 || std::has_single_bit(static_cast<uint64_t>(D)), "Hadamard of {} elements", D);
  with_real(a.x.dtype, [&]<class R>(R) {
    std::vector<double> v(static_cast<size_t>(D));
    for (int64_t t = 0; t < T; ++t) {
      const R* x = row_of<R>(a.x, t);
      std::copy(x, x + D, v.begin());
      for (size_t step = 1; step < v.size(); step *= 2)
        for (size_t i = 0; i < v.size(); ++i) {
          if (i & step) continue;
          const double p = v[i], q = v[i + step];
          v[i] = p + q;
          v[i + step] = p - q;
        }
      for (int64_t i = 0; i < D; ++i)
        row_of<R>(a.y, t)[i] =
            static_cast<R>(v[static_cast<size_t>(i)] / std::sqrt(static_cast<double>(D)));
    }
  });
}

void round_bf16(const Exec&, const RoundBf16& a) {
  with_real(a.x.dtype, [&]<class R>(R) {
    for (int64_t t = 0; t < a.x.dim[0]; ++t)
      for (int64_t i = 0; i < a.x.dim[1]; ++i)
        row_of<R>(a.y, t)[i] =
            static_cast<R>(to_float(to_bf16(static_cast<float>(row_of<R>(a.x, t)[i]))));
  });
}

}  // namespace fathom::ref
