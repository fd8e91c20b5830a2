#include "fathom/kernels/cpu/simd/split_rows.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using namespace fathom::testing;

// B[k][n] in split panels.
class Panels {
 public:
  Panels(const std::vector<float>& b, int64_t n, int64_t k, ThreadPool& pool)
      : memory_(std::make_unique<Aligned>(packed_size_bytes(PackedType::kSplit, n, k))) {
    packed = pack_nn({.type = PackedType::kSplit,
                      .n = n,
                      .k = k,
                      .src = b.data(),
                      .ld = n,
                      .dst = memory_->data()},
                     pool);
  }
  PackedB packed;

 private:
  std::unique_ptr<Aligned> memory_;
};

std::vector<int32_t> some_rows(int64_t count, int64_t of) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>((7 * i + 3) % of));
  return rows;
}

struct Shape {
  int64_t m, n, k;
};

TEST_CASE("gemm of split panels: the bits of the plain loop, whatever threads, cuts and passes") {
  if (!simd::has_split_products()) return;
  ThreadPool one(1), two(2), five(5);
  for (const auto& [m, n, k] : {Shape{64, 64, 64},
                                {1, 40, 33},
                                {37, 33, 40},
                                {130, 96, 256},
                                {70, 33, 1100},
                                {300, 40, 1030},
                                {33, 272, 1024},
                                {40, 1000, 320}})
    for (const bool add : {false, true})
      for (const bool gather : {false, true}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        const int64_t lda = k + 5, ldc = n + 3;
        const auto a = random_floats(m * lda, 1), b = random_floats(k * n, 2);
        const auto start = random_floats(m * ldc, 3);
        const auto rows = some_rows(m, m);
        const Panels panels(b, n, k, two);
        auto want = start;
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; j += 7) {
            const int64_t row = gather ? rows[static_cast<size_t>(i)] : i;
            const float sum = ref::split_dot(a.data() + row * lda, 1, b.data() + j, n, k);
            float& out = want[static_cast<size_t>(i * ldc + j)];
            out = add ? out + sum : sum;
          }
        std::vector<float> first;
        for (ThreadPool* pool : {&one, &two, &five}) {
          auto got = start;
          gemm({.a = a.data(),
                .lda = lda,
                .a_rows = gather ? rows.data() : nullptr,
                .b = panels.packed,
                .c = got.data(),
                .ldc = ldc,
                .m = m,
                .add = add},
               *pool);
          if (first.empty()) first = got;
          CHECK(same_bits(got, first));
        }
        int64_t wrong = 0;
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < ldc; ++j) {
            const auto at = static_cast<size_t>(i * ldc + j);
            if (j >= n || j % 7 == 0)
              wrong += std::memcmp(&first[at], &want[at], sizeof(float)) != 0;
          }
        CHECK(wrong == 0);
      }
}

TEST_CASE("a row of split products does not depend on the rows beside it, nor on its group") {
  if (!simd::has_split_products()) return;
  ThreadPool one(1), two(2);
  const int64_t n = 48, k = 96, m = 150;
  const auto a = random_floats(m * k, 4);
  const std::vector<int32_t> offsets = {0, 40, 40, 41, 150};
  std::vector<std::vector<float>> b;
  std::vector<Panels> panels;
  panels.reserve(4);
  std::vector<PackedB> packed;
  for (uint64_t e = 0; e < 4; ++e) {
    b.push_back(random_floats(k * n, 5 + e));
    packed.push_back(panels.emplace_back(b.back(), n, k, one).packed);
  }
  std::vector<float> want(static_cast<size_t>(m * n));
  for (size_t e = 0; e < 4; ++e)
    for (int64_t i = offsets[e]; i < offsets[e + 1]; ++i)
      gemm({.a = a.data() + i * k,
            .lda = k,
            .b = packed[e],
            .c = want.data() + i * n,
            .ldc = n,
            .m = 1},
           one);
  for (ThreadPool* pool : {&one, &two}) {
    std::vector<float> got(want.size());
    gemm_grouped({.a = a.data(),
                  .lda = k,
                  .b = packed.data(),
                  .offsets = offsets.data(),
                  .groups = 4,
                  .c = got.data(),
                  .ldc = n},
                 *pool);
    CHECK(same_bits(got, want));
  }
}

}  // namespace
}  // namespace fathom
