// f32 products, packing and weight gradients against scalar fma loops, bit for bit.
#include "fathom/kernels/gemm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

using testing::Aligned;
using testing::for_each_target;
using testing::random_floats;
using testing::same_bits;

float dot(const float* a, const float* b, int64_t k, int64_t b_step = 1) {
  float acc = 0;
  for (int64_t i = 0; i < k; ++i) acc = std::fma(a[i], b[i * b_step], acc);
  return acc;
}

struct Shape {
  int64_t m, n, k;
};

const Shape kShapes[] = {{1, 1, 1},    {1, 16, 64},    {2, 17, 33},   {3, 40, 5},
                         {4, 64, 300}, {5, 65, 257},   {6, 96, 128},  {7, 31, 255},
                         {8, 48, 256}, {9, 130, 70},   {13, 33, 7},   {14, 32, 513},
                         {15, 64, 64}, {29, 200, 300}, {64, 70, 520}, {250, 48, 40}};

void check_gemm(const Shape& s, ThreadPool& pool, bool add, int64_t extra, bool gather) {
  const int64_t lda = s.k + extra, ldc = s.n + extra, source_rows = s.m + 3;
  const auto a = random_floats(source_rows * lda, 1), w = random_floats(s.n * s.k, 2);
  auto c = random_floats(s.m * ldc, 3);
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < s.m; ++i) rows.push_back(static_cast<int32_t>((i * 7 + 2) % source_rows));
  auto want = c;
  for (int64_t i = 0; i < s.m; ++i) {
    const int64_t row = gather ? rows[static_cast<size_t>(i)] : i;
    for (int64_t j = 0; j < s.n; ++j) {
      const float acc =
          dot(&a[static_cast<size_t>(row * lda)], &w[static_cast<size_t>(j * s.k)], s.k);
      float& out = want[static_cast<size_t>(i * ldc + j)];
      out = add ? out + acc : acc;
    }
  }
  const Aligned packed(packed_size_bytes(PackedType::kF32, s.n, s.k));
  const PackedB b = pack_nt({.type = PackedType::kF32,
                             .n = s.n,
                             .k = s.k,
                             .src = w.data(),
                             .ld = s.k,
                             .dst = packed.data()},
                            pool);
  gemm({.a = a.data(),
        .lda = lda,
        .a_rows = gather ? rows.data() : nullptr,
        .b = b,
        .c = c.data(),
        .ldc = ldc,
        .m = s.m,
        .add = add},
       pool);
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CHECK(same_bits(c, want));
}

}  // namespace

TEST_CASE("gemm equals a scalar fma loop bit for bit on every instruction set") {
  ThreadPool one(1), two(2);
  for_each_target([&] {
    for (const Shape& s : kShapes) {
      check_gemm(s, one, false, 0, false);
      check_gemm(s, two, true, 3, false);
      check_gemm(s, two, false, 1, true);
      check_gemm(s, one, true, 0, true);
    }
  });
}

TEST_CASE("gemm with page-sized row strides and several blocks of k keeps the bits") {
  ThreadPool two(2);
  for_each_target([&] {
    check_gemm({20, 48, 1024}, two, false, 0, false);
    check_gemm({33, 48, 2048}, two, true, 0, false);
    check_gemm({33, 60, 2048}, two, true, 0, true);
  });
}

TEST_CASE("gemm adds the finished sum to the previous value") {
  ThreadPool one(1);
  const std::vector<float> a(2, 1.0f), w(2, 1.0f);
  const Aligned packed(packed_size_bytes(PackedType::kF32, 1, 2));
  const PackedB b = pack_nt({.n = 1, .k = 2, .src = w.data(), .ld = 2, .dst = packed.data()}, one);
  float c = 16777216.0f;  // adding 1 twice would be lost twice
  gemm({.a = a.data(), .lda = 2, .b = b, .c = &c, .ldc = 1, .m = 1, .add = true}, one);
  CHECK(c == 16777218.0f);
}

TEST_CASE("gemm with nothing to sum clears C or leaves it with add") {
  ThreadPool two(2);
  std::vector<float> c(6, 5.0f);
  PackedB b{.n = 3, .k = 0};
  gemm({.b = b, .c = c.data(), .ldc = 3, .m = 2, .add = true}, two);
  CHECK(c == std::vector<float>(6, 5.0f));
  gemm({.b = b, .c = c.data(), .ldc = 3, .m = 1}, two);
  CHECK(c == std::vector<float>{0, 0, 0, 5, 5, 5});
  gemm({.b = b, .c = c.data(), .ldc = 3, .m = 0}, two);
  CHECK(c[3] == 5.0f);
}

TEST_CASE("a row alone has the bits of the same row in a batch") {
  ThreadPool two(2);
  const int64_t m = 130, n = 272, k = 384;
  const auto a = random_floats(m * k, 5), w = random_floats(n * k, 6);
  const Aligned packed(packed_size_bytes(PackedType::kF32, n, k));
  const PackedB b = pack_nt({.n = n, .k = k, .src = w.data(), .ld = k, .dst = packed.data()}, two);
  std::vector<float> c(static_cast<size_t>(m * n)), row(static_cast<size_t>(n));
  gemm({.a = a.data(), .lda = k, .b = b, .c = c.data(), .ldc = n, .m = m}, two);
  for (int64_t i = 0; i < m; i += 11) {
    gemm({.a = a.data() + i * k, .lda = k, .b = b, .c = row.data(), .ldc = n, .m = 1}, two);
    CHECK(std::memcmp(row.data(), c.data() + i * n, sizeof(float) * row.size()) == 0);
  }
}

TEST_CASE("pack_nn of a matrix equals pack_nt of its transpose, padding included") {
  ThreadPool two(2);
  for_each_target([&] {
    for (const Shape s : {Shape{0, 33, 70}, Shape{0, 16, 3}, Shape{0, 1, 1}, Shape{0, 100, 257}}) {
      const auto w = random_floats(s.n * s.k, 8);
      std::vector<float> t(w.size());
      for (int64_t i = 0; i < s.n; ++i) {
        for (int64_t j = 0; j < s.k; ++j) {
          t[static_cast<size_t>(j * s.n + i)] = w[static_cast<size_t>(i * s.k + j)];
        }
      }
      const size_t bytes = packed_size_bytes(PackedType::kF32, s.n, s.k);
      const Aligned x(bytes), y(bytes);
      pack_nt({.n = s.n, .k = s.k, .src = w.data(), .ld = s.k, .dst = x.data()}, two);
      pack_nn({.n = s.n, .k = s.k, .src = t.data(), .ld = s.n, .dst = y.data()}, two);
      const auto used = static_cast<size_t>((s.n + 15) / 16 * 16 * s.k) * sizeof(float);
      CHECK(std::memcmp(x.data(), y.data(), used) == 0);
      CHECK(static_cast<const float*>(x.data())[0] == w[0]);
    }
  });
}

TEST_CASE("grouped gemm has the bits of separate calls, empty groups included") {
  ThreadPool one(1), two(2);
  const std::vector<int32_t> offsets = {0, 3, 3, 20, 21, 64};
  const int64_t n = 50, k = 300, groups = 5, m = 64;
  const auto a = random_floats((m + 9) * k, 11), w = random_floats(groups * n * k, 12);
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < m; ++i) rows.push_back(static_cast<int32_t>(i * 5 % (m + 9)));
  const size_t each = packed_size_bytes(PackedType::kF32, n, k);
  const Aligned packed(each * groups);
  std::vector<PackedB> b;
  for (int64_t e = 0; e < groups; ++e) {
    b.push_back(pack_nt({.n = n,
                         .k = k,
                         .src = w.data() + e * n * k,
                         .ld = k,
                         .dst = static_cast<char*>(packed.data()) + static_cast<size_t>(e) * each},
                        two));
  }
  for_each_target([&] {
    for (const bool add : {false, true}) {
      for (const bool gather : {false, true}) {
        auto want = random_floats(m * n, 13), got1 = want, got2 = want;
        for (size_t e = 0; e < b.size(); ++e) {
          const int64_t first = offsets[e];
          gemm({.a = gather ? a.data() : a.data() + first * k,
                .lda = k,
                .a_rows = gather ? rows.data() + first : nullptr,
                .b = b[e],
                .c = want.data() + first * n,
                .ldc = n,
                .m = offsets[e + 1] - first,
                .add = add},
               one);
        }
        GroupedGemmParams p{.a = a.data(),
                            .lda = k,
                            .a_rows = gather ? rows.data() : nullptr,
                            .b = b.data(),
                            .offsets = offsets.data(),
                            .groups = groups,
                            .c = got1.data(),
                            .ldc = n,
                            .add = add};
        gemm_grouped(p, one);
        p.c = got2.data();
        gemm_grouped(p, two);
        CHECK(same_bits(got1, want));
        CHECK(same_bits(got2, want));
      }
    }
  });
}

TEST_CASE("weight gradient equals its chunked fma loop bit for bit on every instruction set") {
  ThreadPool one(1), two(2);
  enum Gathered { kNone, kX, kDy };
  for_each_target([&] {
    for (const Shape& s :
         {Shape{1, 1, 1}, Shape{3, 17, 40}, Shape{255, 14, 16}, Shape{256, 30, 33},
          Shape{257, 64, 64}, Shape{300, 64, 24}, Shape{600, 45, 100}, Shape{0, 5, 20}}) {
      for (const auto& [gathered, add] :
           {std::pair{kNone, false}, {kNone, true}, {kX, false}, {kX, true}, {kDy, false}}) {
        const int64_t ldy = s.n + 2, ldx = s.k + 5, ldw = s.k + 1;
        const auto dy = random_floats((s.m + 4) * ldy, 21), x = random_floats((s.m + 4) * ldx, 22);
        std::vector<int32_t> rows;
        for (int64_t i = 0; i < s.m; ++i) rows.push_back(static_cast<int32_t>(i * 3 % (s.m + 4)));
        const auto row = [&](int64_t i, bool by_list) {
          return by_list ? rows[static_cast<size_t>(i)] : i;
        };
        const auto start = random_floats(s.n * ldw, 23);
        auto want = start, got1 = start, got2 = start;
        for (int64_t n = 0; n < s.n; ++n) {
          for (int64_t k = 0; k < s.k; ++k) {
            float& out = want[static_cast<size_t>(n * ldw + k)];
            if (!add) out = 0;
            for (int64_t i0 = 0; i0 < s.m; i0 += kGradChunk) {
              float acc = 0;
              for (int64_t i = i0; i < std::min(i0 + kGradChunk, s.m); ++i) {
                acc = std::fma(dy[static_cast<size_t>(row(i, gathered == kDy) * ldy + n)],
                               x[static_cast<size_t>(row(i, gathered == kX) * ldx + k)], acc);
              }
              out += acc;
            }
          }
        }
        const int32_t offsets[2] = {0, static_cast<int32_t>(s.m)};
        float* dw[2] = {got1.data(), got2.data()};
        GroupedWeightGradParams p{.dy = dy.data(),
                                  .ldy = ldy,
                                  .dy_rows = gathered == kDy ? rows.data() : nullptr,
                                  .x = x.data(),
                                  .ldx = ldx,
                                  .x_rows = gathered == kX ? rows.data() : nullptr,
                                  .offsets = offsets,
                                  .groups = 1,
                                  .dw = dw,
                                  .ldw = ldw,
                                  .n = s.n,
                                  .k = s.k,
                                  .add = add};
        gemm_weight_grad_grouped(p, one);
        ++p.dw;
        gemm_weight_grad_grouped(p, two);
        CAPTURE(s.m);
        CAPTURE(gathered);
        CHECK(same_bits(got1, want));
        CHECK(same_bits(got2, want));
      }
    }
  });
}

TEST_CASE("grouped weight gradient has the bits of separate calls and clears empty groups") {
  ThreadPool one(1), two(2);
  const std::vector<int32_t> offsets = {0, 0, 300, 301, 320};
  const int64_t n = 40, k = 70, m = 320, groups = 4;
  const auto dy = random_floats(m * n, 31), x = random_floats(m * k, 32);
  std::vector<std::vector<float>> want, got;
  std::vector<float*> dw;
  for (int64_t e = 0; e < groups; ++e) {
    want.emplace_back(static_cast<size_t>(n * k), 7.0f);
    got.emplace_back(static_cast<size_t>(n * k), 7.0f);
  }
  for (size_t e = 0; e < 4; ++e) {
    const int64_t first = offsets[e];
    gemm_weight_grad({.dy = dy.data() + first * n,
                      .ldy = n,
                      .x = x.data() + first * k,
                      .ldx = k,
                      .dw = want[e].data(),
                      .ldw = k,
                      .m = offsets[e + 1] - first,
                      .n = n,
                      .k = k},
                     one);
    dw.push_back(got[e].data());
  }
  gemm_weight_grad_grouped({.dy = dy.data(),
                            .ldy = n,
                            .x = x.data(),
                            .ldx = k,
                            .offsets = offsets.data(),
                            .groups = groups,
                            .dw = dw.data(),
                            .ldw = k,
                            .n = n,
                            .k = k},
                           two);
  for (size_t e = 0; e < 4; ++e) CHECK(same_bits(got[e], want[e]));
  CHECK(got[0][5] == 0.0f);
}

TEST_CASE("not-a-number and infinity travel through padded tiles to their own outputs only") {
  ThreadPool one(1);
  const int64_t n = 20, k = 4;
  auto w = random_floats(n * k, 41);
  w[0] = std::numeric_limits<float>::infinity();
  const std::vector<float> a = {0, 1, 1, 1};
  const Aligned packed(packed_size_bytes(PackedType::kF32, n, k));
  const PackedB b = pack_nt({.n = n, .k = k, .src = w.data(), .ld = k, .dst = packed.data()}, one);
  std::vector<float> c(static_cast<size_t>(n) + 1, 9.0f);
  gemm({.a = a.data(), .lda = k, .b = b, .c = c.data(), .ldc = n, .m = 1}, one);
  CHECK(std::isnan(c[0]));
  for (size_t j = 1; j < 20; ++j) CHECK(std::isfinite(c[j]));
  CHECK(c[20] == 9.0f);
}

}  // namespace fathom
