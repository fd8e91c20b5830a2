// Sixteen lanes: accuracy and limits of exp, order of sums, equal bits on every instruction set.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/vec16_test.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

void exp_all(const float* x, float* y, int64_t n) {
  sweep(n,
        [&](int64_t i, auto part) HWY_ATTR { store16(exp16(load16(x + i, part)), y + i, part); });
}
void sigmoid_all(const float* x, float* y, int64_t n) {
  sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { store16(sigmoid16(load16(x + i, part)), y + i, part); });
}
float sum_of(const float* x, int64_t n) {
  V16 acc = zero16();
  sweep(n, [&](int64_t i, auto part) HWY_ATTR { acc = acc + load16(x + i, part); });
  return sum16(acc);
}
float max_of(const float* x, int64_t n) {
  V16 acc = splat(-HUGE_VALF);
  sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { acc = max16(pad(load16(x + i, part), part, -HUGE_VALF), acc); });
  return largest16(acc);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom::simd {
namespace {

HWY_EXPORT(exp_all);
HWY_EXPORT(sigmoid_all);
HWY_EXPORT(sum_of);
HWY_EXPORT(max_of);

using testing::for_each_target;
using testing::random_floats;
using testing::same_bits;

std::vector<float> exp_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(exp_all)(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

TEST_CASE("exp16 stays within 1.1 units in the last place, with the same bits everywhere") {
  std::vector<float> x;
  for (float v = -87.3f; v < 88.7f; v += 0.00037f) x.push_back(v);
  for (const float r : random_floats(20000, 4)) x.push_back(r);
  const std::vector<float> first = exp_of(x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    const float near = static_cast<float>(want);
    const double ulp =
        static_cast<double>(std::nextafter(near, HUGE_VALF)) - static_cast<double>(near);
    worst = std::max(worst, std::abs(static_cast<double>(first[i]) - want) / ulp);
  }
  MESSAGE("worst error in units in the last place: " << worst);
  CHECK(worst < 1.1);
  for_each_target([&] { CHECK(same_bits(exp_of(x), first)); });
}

TEST_CASE("exp16 has exact limits") {
  for_each_target([] {
    const std::vector<float> y =
        exp_of({-HUGE_VALF, HUGE_VALF, NAN, 0, -104.1f, -1e30f, 89, 1e30f, -100, -0.0f});
    CHECK(y[0] == 0);
    CHECK(y[1] == HUGE_VALF);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 1);
    CHECK(y[4] == 0);
    CHECK(y[5] == 0);
    CHECK(y[6] == HUGE_VALF);
    CHECK(y[7] == HUGE_VALF);
    CHECK(y[8] == doctest::Approx(3.8e-44).epsilon(0.05));
    CHECK(y[9] == 1);
  });
}

TEST_CASE("sigmoid16 is right at both ends") {
  const std::vector<float> x = {-HUGE_VALF, -90, -3, 0, 3, 90, HUGE_VALF};
  for_each_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(sigmoid_all)(x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i)
      CHECK(y[i] == doctest::Approx(1 / (1 + std::exp(-static_cast<double>(x[i])))).epsilon(1e-6));
    CHECK(y[0] == 0);
    CHECK(y[6] == 1);
  });
}

float sum_by_rule(const std::vector<float>& x) {
  float lane[16] = {};
  for (size_t i = 0; i < x.size(); ++i) lane[i % 16] += x[i];
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

TEST_CASE("sum16 adds in the fixed order, largest16 finds the maximum, NaN is skipped") {
  for (const int64_t n : {0, 1, 15, 16, 17, 33, 100, 1000}) {
    std::vector<float> x = random_floats(n, 7);
    for_each_target([&] {
      CHECK(HWY_DYNAMIC_DISPATCH(sum_of)(x.data(), n) == sum_by_rule(x));
      const float want = n == 0 ? -HUGE_VALF : *std::max_element(x.begin(), x.end());
      CHECK(HWY_DYNAMIC_DISPATCH(max_of)(x.data(), n) == want);
    });
    if (n < 2) continue;
    x[0] = NAN;
    CHECK(HWY_DYNAMIC_DISPATCH(max_of)(x.data(), n) == *std::max_element(x.begin() + 1, x.end()));
  }
}

}  // namespace
}  // namespace fathom::simd
#endif
