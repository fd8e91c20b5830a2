// The rule of split products (gemm.h) where numbers are extreme, and how near they come.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using namespace fathom::testing;

// Numbers of all sizes, down to those below the normal ones.
std::vector<float> wide_floats(int64_t count, uint64_t seed, int lowest, int highest) {
  auto v = random_floats(count, seed);
  const auto sizes = random_floats(count, seed + 100);
  for (size_t i = 0; i < v.size(); ++i) {
    const float at = (sizes[i] + 1) / 2;
    v[i] = std::ldexp(v[i], lowest + static_cast<int>(at * static_cast<float>(highest - lowest)));
  }
  return v;
}

TEST_CASE("split products of very small and very different numbers have the bits of their rule") {
  if (!simd::has_split_products()) return;  // no such unit
  ThreadPool pool(1);
  const int64_t m = 64, n = 32, k = 32;
  for (const auto& [lowest, highest] : {std::pair{-80, -40}, {-149, 20}, {-30, 30}}) {
    CAPTURE(lowest);
    const auto dy = wide_floats(m * n, 4, lowest, highest), x = wide_floats(m * k, 5, lowest, 20);
    std::vector<float> got(static_cast<size_t>(n * k)), want;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j)
        want.push_back(ref::split_dot(dy.data() + i, n, x.data() + j, k, m));
    gemm_weight_grad({.dy = dy.data(),
                      .ldy = n,
                      .x = x.data(),
                      .ldx = k,
                      .dw = got.data(),
                      .ldw = k,
                      .m = m,
                      .n = n,
                      .k = k,
                      .products = GradProducts::kSplit},
                     pool);
    CHECK(same_bits(got, want));
  }
}

TEST_CASE("split products are about as near to the exact sum as a chain of f32 multiply-adds") {
  for (const int64_t k : {32, 256, 1024}) {
    CAPTURE(k);
    const auto a = random_floats(k * 64, 7), b = random_floats(k * 64, 8);
    double split = 0, chain = 0;
    for (int64_t i = 0; i < 64; ++i) {
      double exact = 0;
      float acc = 0;
      for (int64_t q = i * k; q < (i + 1) * k; ++q) {
        const auto at = static_cast<size_t>(q);
        exact += static_cast<double>(a[at]) * static_cast<double>(b[at]);
        acc = std::fma(a[at], b[at], acc);
      }
      const float sum = ref::split_dot(a.data() + i * k, 1, b.data() + i * k, 1, k);
      split += std::pow(static_cast<double>(sum) - exact, 2);
      chain += std::pow(static_cast<double>(acc) - exact, 2);
    }
    MESSAGE("k " << k << ": root of squares " << std::sqrt(split / 64) << ", chain "
                 << std::sqrt(chain / 64));
    CHECK(split <= 1.5 * chain);
  }
}

}  // namespace
}  // namespace fathom
