// The selector on orders of scores that are hard for a running threshold: every key better than all
// before, many equal ones at the boundary, the best ones last. Its cut on sets that are hard for a
// histogram.
#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/cpu/simd/selection_vec.h"

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

struct Candidate {
  uint32_t order;
  int32_t pos;
};

// What keep_best leaves of these; *last is what it returns.
std::vector<Candidate> cut(const std::vector<uint32_t>& orders, int64_t topk, int64_t most,
                           uint32_t* last) {
  const auto n = static_cast<int64_t>(orders.size());
  constexpr uint32_t kBehind = 0xDEADBEEF;  // nobody's
  std::vector<uint32_t> order(orders), few(orders.size() + 16, kBehind);
  std::vector<int32_t> pos(orders.size() + 16);
  order.resize(orders.size() + 16, kBehind);
  for (int64_t i = 0; i < n; ++i) pos[i] = static_cast<int32_t>(3 * i);
  int64_t kept = 0;
  *last =
      simd::selection_vec().keep_best(pos.data(), order.data(), n, topk, most, few.data(), &kept);
  std::vector<Candidate> out;
  for (int64_t i = 0; i < kept; ++i) out.push_back({order[i], pos[i]});
  return out;
}

}  // namespace

TEST_CASE("a cut leaves the best orders, among equals the first, in their places") {
  std::mt19937 rng(5);
  const std::function<uint32_t()> kinds[] = {
      [&] { return static_cast<uint32_t>(rng()); },
      [&] { return static_cast<uint32_t>(0xFF800000u - rng() % 3); },  // +inf
      [&] { return rng() % 2 ? 0x80000000u : 0xBF000000u + static_cast<uint32_t>(rng() >> 9); },
      [&] { return static_cast<uint32_t>(rng()) >> rng() % 32; },        // all sizes
      [&] { return rng() % 1000 ? 7u : static_cast<uint32_t>(rng()); },  // nearly all equal
      [&] { return 0xC0000000u + static_cast<uint32_t>(rng() % 20); },
      [&] { return 0u; },
  };
  testing::for_each_target([&] {
    for (const auto& kind : kinds)
      for (const int64_t n : {2, 15, 17, 64, 1000, 2033, 6272})
        for (const int64_t topk : {int64_t{1}, n / 3 + 1, n - 1})
          for (const int64_t most : {topk, std::min(n - 1, topk + topk / 4)}) {
            CAPTURE(n);
            CAPTURE(topk);
            CAPTURE(most);
            std::vector<uint32_t> orders(static_cast<size_t>(n));
            for (uint32_t& o : orders) o = kind();
            std::vector<uint32_t> sorted = orders;
            std::sort(sorted.begin(), sorted.end(), std::greater<>());
            uint32_t last = 0;
            const std::vector<Candidate> got = cut(orders, topk, most, &last);
            const auto kept = static_cast<int64_t>(got.size());
            REQUIRE(kept >= topk);
            REQUIRE(kept <= most);
            REQUIRE(last <= sorted[static_cast<size_t>(topk - 1)]);
            // From the order of the last one kept on: all above it, and its equals from the first.
            const uint32_t least = sorted[static_cast<size_t>(kept - 1)];
            int64_t equal =
                kept - (std::lower_bound(sorted.begin(), sorted.end(), least, std::greater<>()) -
                        sorted.begin());
            std::vector<Candidate> want;
            for (int64_t i = 0; i < n; ++i) {
              const uint32_t o = orders[static_cast<size_t>(i)];
              if (o > least || (o == least && equal-- > 0))
                want.push_back({o, static_cast<int32_t>(3 * i)});
            }
            REQUIRE(std::equal(got.begin(), got.end(), want.begin(), want.end(),
                               [](const Candidate& a, const Candidate& b) {
                                 return a.order == b.order && a.pos == b.pos;
                               }));
          }
  });
}

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
