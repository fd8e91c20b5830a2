// Weight gradients in split products against the plain loop.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using namespace fathom::testing;

struct Case {
  int64_t n, k;
  std::vector<int32_t> offsets;
};

// One list of rows for both operands, so that rows of different groups lie among each other.
struct Operands {
  Operands(const Case& c, bool by_list)
      : ldy(c.n + 5),
        ldx(c.k + 3),
        dy(random_floats(c.offsets.back() * ldy, 1)),
        x(random_floats(c.offsets.back() * ldx, 2)),
        rows(static_cast<size_t>(c.offsets.back())),
        gathered(by_list) {
    std::iota(rows.rbegin(), rows.rend(), 0);
  }
  int64_t row(int64_t i) const { return gathered ? rows[static_cast<size_t>(i)] : i; }

  int64_t ldy, ldx;
  std::vector<float> dy, x;
  std::vector<int32_t> rows;
  bool gathered;
};

std::vector<float> by_rule(const Case& c, const Operands& o, size_t group, bool add,
                           std::vector<float> dw, int64_t ldw) {
  for (int64_t n = 0; n < c.n; ++n)
    for (int64_t k = 0; k < c.k; ++k) {
      float& out = dw[static_cast<size_t>(n * ldw + k)];
      if (!add) out = 0;
      std::vector<float> a, b;
      for (int64_t i = c.offsets[group]; i < c.offsets[group + 1]; ++i) {
        a.push_back(o.dy[static_cast<size_t>(o.row(i) * o.ldy + n)]);
        b.push_back(o.x[static_cast<size_t>(o.row(i) * o.ldx + k)]);
      }
      for (size_t i = 0; i < a.size(); i += kGradChunk)
        out += ref::split_dot(&a[i], 1, &b[i], 1,
                              std::min(kGradChunk, static_cast<int64_t>(a.size() - i)));
    }
  return dw;
}

TEST_CASE("weight gradients in split products have the bits of their rule") {
  if (!simd::has_split_products()) return;  // no such unit
  ThreadPool one(1), two(2);
  const Case cases[] = {{64, 96, {0, 64}},   {40, 33, {0, 300}},
                        {3, 70, {0, 1}},     {257, 12, {0, 31}},
                        {160, 20, {0, 520}}, {20, 170, {0, 0, 40, 340, 340, 341}},
                        {530, 600, {0, 33}}};
  for (const Case& c : cases)
    for (const bool gathered : {false, true})
      for (const bool add : {false, true}) {
        CAPTURE(c.n);
        CAPTURE(c.k);
        CAPTURE(gathered);
        CAPTURE(add);
        const Operands o(c, gathered);
        const int64_t ldw = c.k + 2;
        const auto start = random_floats(c.n * ldw, 3);
        const size_t groups = c.offsets.size() - 1;
        for (ThreadPool* pool : {&one, &two}) {
          std::vector<std::vector<float>> got(groups, start);
          std::vector<float*> dw;
          for (auto& g : got) dw.push_back(g.data());
          gemm_weight_grad_grouped({.dy = o.dy.data(),
                                    .ldy = o.ldy,
                                    .dy_rows = gathered ? o.rows.data() : nullptr,
                                    .x = o.x.data(),
                                    .ldx = o.ldx,
                                    .x_rows = gathered ? o.rows.data() : nullptr,
                                    .offsets = c.offsets.data(),
                                    .groups = static_cast<int64_t>(groups),
                                    .dw = dw.data(),
                                    .ldw = ldw,
                                    .n = c.n,
                                    .k = c.k,
                                    .add = add,
                                    .products = GradProducts::kSplit},
                                   *pool);
          for (size_t g = 0; g < groups; ++g) {
            CAPTURE(g);
            CHECK(same_bits(got[g], by_rule(c, o, g, add, start, ldw)));
          }
        }
      }
}

}  // namespace
}  // namespace fathom
