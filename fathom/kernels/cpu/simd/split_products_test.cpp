#include "fathom/kernels/cpu/simd/split_products.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

using namespace fathom::testing;
using simd::SplitTable;

class Strips {
 public:
  Strips(int64_t rows, int64_t k)
      : memory_(static_cast<size_t>(simd::split_strips(rows) * simd::split_stride(k)) * 2) {}
  uint16_t* data() const { return static_cast<uint16_t*>(memory_.data()); }

 private:
  Aligned memory_;
};

enum class Form { kRows, kTurned };

// A [m][k] or, turned, [k][m]; B [k][n].
std::vector<float> product(const SplitTable& t, Form form, const std::vector<float>& a,
                           const std::vector<float>& b, int64_t m, int64_t n, int64_t k,
                           std::vector<float> out, bool add) {
  const Strips sa(m, k), sb(n, k);
  if (form == Form::kRows)
    t.rows({.src = a.data(), .ld = k, .rows = m, .cols = k, .dst = sa.data()});
  else
    t.turned({.src = a.data(), .ld = m, .rows = k, .cols = m, .dst = sa.data()});
  t.columns({.src = b.data(), .ld = n, .rows = k, .cols = n, .dst = sb.data()});
  t.multiply({.a = sa.data(),
              .b = sb.data(),
              .rows = m,
              .cols = n,
              .k = k,
              .out = out.data() + 1,
              .ld_out = n + 3,
              .add = add});
  return out;
}

struct Shape {
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {{32, 32, 32}, {64, 96, 256}, {1, 1, 1},     {7, 5, 3},
                             {16, 16, 64}, {17, 33, 31},  {33, 15, 100}, {48, 40, 257}};

TEST_CASE("split products have the bits of the plain loop, edges included") {
  const SplitTable* t = simd::split_table();
  if (t == nullptr) return;  // no such unit
  for (const auto& [m, n, k] : kShapes)
    for (const Form form : {Form::kRows, Form::kTurned})
      for (const bool add : {false, true}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(add);
        const auto a = random_floats(m * k, 1), b = random_floats(k * n, 2);
        const auto start = random_floats(m * (n + 3) + 1, 3);
        auto want = start;
        const int64_t row = form == Form::kRows ? k : 1, step = form == Form::kRows ? 1 : m;
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            float& out = want[static_cast<size_t>(1 + i * (n + 3) + j)];
            const float sum = ref::split_dot(a.data() + i * row, step, b.data() + j, n, k);
            out = add ? out + sum : sum;
          }
        CHECK(same_bits(product(*t, form, a, b, m, n, k, start, add), want));
      }
}

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

TEST_CASE("split products of very small and very different numbers have the same bits too") {
  const SplitTable* t = simd::split_table();
  if (t == nullptr) return;
  const int64_t m = 32, n = 32, k = 64;
  for (const auto& [lowest, highest] : {std::pair{-80, -40}, {-149, 20}, {-30, 30}}) {
    CAPTURE(lowest);
    const auto a = wide_floats(m * k, 4, lowest, highest), b = wide_floats(k * n, 5, lowest, 20);
    const std::vector<float> start(static_cast<size_t>(m * (n + 3) + 1));
    auto want = start;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        want[static_cast<size_t>(1 + i * (n + 3) + j)] =
            ref::split_dot(a.data() + i * k, 1, b.data() + j, n, k);
    CHECK(same_bits(product(*t, Form::kRows, a, b, m, n, k, start, false), want));
  }
}

TEST_CASE("gathered rows split like rows that stand where they are read") {
  const SplitTable* t = simd::split_table();
  if (t == nullptr) return;
  const int64_t rows = 37, cols = 50, ld = 53;
  const auto x = random_floats(rows * ld, 6);
  std::vector<int32_t> order(static_cast<size_t>(rows));
  std::iota(order.rbegin(), order.rend(), 0);
  std::vector<float> turned_round;
  for (const int32_t r : order)
    turned_round.insert(turned_round.end(), x.begin() + r * ld, x.begin() + r * ld + ld);
  for (const simd::SplitFn split : {t->rows, t->turned, t->columns}) {
    const bool by_rows = split == t->rows;
    const int64_t k = by_rows ? cols : rows, strips = simd::split_strips(by_rows ? rows : cols);
    const Strips got(strips * 16, k), want(strips * 16, k);
    split({.src = x.data(),
           .ld = ld,
           .gather = order.data(),
           .rows = rows,
           .cols = cols,
           .dst = got.data()});
    split({.src = turned_round.data(), .ld = ld, .rows = rows, .cols = cols, .dst = want.data()});
    const int64_t used = simd::split_stride(k) - 32;
    for (int64_t s = 0; s < strips; ++s)
      CHECK(std::equal(got.data() + s * simd::split_stride(k),
                       got.data() + s * simd::split_stride(k) + used,
                       want.data() + s * simd::split_stride(k)));
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
