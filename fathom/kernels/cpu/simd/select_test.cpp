// The selector on orders of scores that are hard for a running threshold: every key better than all
// before, many equal ones at the boundary, the best ones last.
#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

constexpr int kKeys = 3000;

struct Order {
  const char* name;
  int (*level)(int pos);  // >= 1; the score is a multiple of it
};
constexpr Order kOrders[] = {
    {"rising", [](int s) { return s + 1; }},
    {"falling", [](int s) { return kKeys - s; }},
    {"equal", [](int) { return 3; }},
    {"five levels", [](int s) { return 1 + s * 7919 % 5; }},
    {"saw", [](int s) { return 1 + s % 700; }},
    {"few good ones late", [](int s) { return s > 2900 && s % 3 == 0 ? s : 1 + s % 2; }},
    {"rising in equal runs", [](int s) { return 1 + s / 100; }},
};

// Rows of one number throughout have equal scores exactly when their numbers are equal, in codes
// too.
Tensor keys_of(TestExec& t, const Order& order, int64_t I) {
  Tensor k = t.make({kKeys, I});
  for (int s = 0; s < kKeys; ++s)
    std::fill_n(k.as<float>() + s * I, I, static_cast<float>(order.level(s)));
  return k;
}

Tensor ones(TestExec& t, std::initializer_list<int64_t> dims) {
  Tensor x = t.make(dims);
  std::fill_n(x.as<float>(), x.view.numel(), 1.0f);
  return x;
}

Tensor select(const Kernels& kernels, TestExec& t, const TestRows& rows, const KeyPages& keys,
              int64_t topk, int64_t I) {
  const Tensor q = ones(t, {rows.rows(), 2, I}), w = ones(t, {rows.rows(), 2});
  Tensor sel = t.make({rows.rows(), topk}, DType::kI32);
  kernels.index_select(t.exec, {.q = q, .w = w, .rows = rows.ref(), .keys = keys, .sel = sel});
  return sel;
}

}  // namespace

TEST_CASE(
    "hard orders of scores: the reference's choice, ties to the lowest position, no later key") {
  constexpr int64_t I = 64, kRows = 40;
  TestExec one, two(2), three(3);
  const TestRows batch({kRows}, {kKeys - kRows}), last({1}, {kKeys - 1});
  for (const Order& order : kOrders) {
    CAPTURE(order.name);
    const Tensor k = keys_of(one, order, I);
    const CodedPages coded(cpu_ref(), one, k);
    const TestPages plain({{k.as<float>(), k.as<float>() + k.view.numel()}}, I, I, DType::kF32);
    for (const KeyPages& keys : {coded.ref(I), plain.ref()}) {
      CAPTURE(dtype_name(keys.dtype));
      for (const int64_t topk : {1, 512, 1300}) {
        CAPTURE(topk);
        const Tensor want = select(cpu_ref(), one, batch, keys, topk, I);
        for (int64_t r = 0; r < kRows; ++r) {  // what the order says
          const int32_t* row = want.as<int32_t>() + r * topk;
          REQUIRE(row[topk - 1] <= kKeys - kRows + r);
          if (order.level(0) == order.level(kKeys - 1)) REQUIRE(row[topk - 1] == topk - 1);
        }
        for (TestExec* t : {&one, &two, &three})
          CHECK(same_bits(select(cpu_simd(), *t, batch, keys, topk, I), want));
        testing::for_each_target([&] {
          for (TestExec* t : {&one, &two, &three})
            CHECK(same_bits(select(cpu_simd(), *t, last, keys, topk, I),
                            slice(want.view, 0, kRows - 1, 1)));
        });
      }
    }
  }
}

}  // namespace fathom
