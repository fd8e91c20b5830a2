#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

struct Sizes {
  int64_t J, I;
};

// Queries and weights of the positions that `rows` stand at, whatever the batch; whole numbers when
// `coarse`, so that ties are common.
struct Queries {
  Tensor q, w;
  Queries(TestExec& t, const Sizes& d, const TestRows& rows, bool coarse = false)
      : q(t.make({rows.rows(), d.J, d.I})), w(t.make({rows.rows(), d.J})) {
    for (size_t b = 0; b < rows.first_pos.size(); ++b)
      for (int32_t r = rows.first_row[b]; r < rows.first_row[b + 1]; ++r) {
        Rng rng(5, "index", static_cast<uint64_t>(rows.first_pos[b] + r - rows.first_row[b]));
        const auto draw = [&] {
          return coarse ? static_cast<float>(rng.range(-1, 1)) : static_cast<float>(rng.normal());
        };
        for (int64_t i = 0; i < d.J * d.I; ++i) q.as<float>()[r * d.J * d.I + i] = draw();
        for (int64_t j = 0; j < d.J; ++j) w.as<float>()[r * d.J + j] = draw();
      }
  }
};

Tensor select(const Kernels& kernels, TestExec& t, const Queries& x, const TestRows& rows,
              const KeyPages& keys, int64_t topk) {
  Tensor sel = t.make({rows.rows(), topk}, DType::kI32);
  kernels.index_select(t.exec, {.q = x.q, .w = x.w, .rows = rows.ref(), .keys = keys, .sel = sel});
  return sel;
}

Tensor scores(const Kernels& kernels, TestExec& t, const Queries& x, const TestRows& rows,
              const KeyPages& keys, int64_t width) {
  Tensor out = t.make({rows.rows(), width});
  kernels.index_scores(t.exec,
                       {.q = x.q, .w = x.w, .rows = rows.ref(), .keys = keys, .scores = out});
  return out;
}

std::vector<int32_t> row_of(const Tensor& sel, int64_t t) {
  const int32_t* p = sel.as<int32_t>() + t * sel.view.dim[1];
  return {p, p + sel.view.dim[1]};
}

std::vector<std::vector<float>> coarse_keys(const std::vector<int>& n, int64_t width) {
  auto keys = random_keys(n, width, "k");
  for (auto& seq : keys)
    for (float& x : seq) x = std::round(x);
  return keys;
}

}  // namespace

TEST_CASE("index scores equal the reference over odd sizes and pages") {
  TestExec t;
  for (const Sizes& d : {Sizes{1, 1}, {3, 15}, {4, 32}, {2, 33}, {17, 17}, {64, 16}})
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const std::vector<int> n = {63, 1, 130};
      const TestRows rows(n);
      const TestPages pages(random_keys(n, d.I, "k"), d.I, d.I + 1, type);
      const Queries x(t, d, rows);
      CHECK(relative_error(scores(cpu_simd(), t, x, rows, pages.ref(), 131),
                           scores(cpu_ref(), t, x, rows, pages.ref(), 131)) < 3e-6);
    }
}

TEST_CASE("the selector picks exactly what the reference picks, ties included") {
  TestExec one, two(2);
  const std::vector<int> n = {1, 64, 65, 200};
  const TestRows rows(n);
  for (const Sizes& d : {Sizes{1, 4}, {4, 16}, {16, 7}}) {
    const Queries x(one, d, rows, true);
    const TestPages pages(coarse_keys(n, d.I), d.I, d.I, DType::kF32);
    for (const int64_t topk : {1, 3, 15, 64, 70, 200, 300}) {
      CAPTURE(topk);
      const Tensor want = select(cpu_ref(), one, x, rows, pages.ref(), topk);
      CHECK(same_bits(select(cpu_simd(), one, x, rows, pages.ref(), topk), want));
      CHECK(same_bits(select(cpu_simd(), two, x, rows, pages.ref(), topk), want));
    }
  }
}

TEST_CASE("one long row selects the same alone, in a batch, on 2 threads and token by token") {
  TestExec one, two(2);
  const Sizes d{2, 8};
  const int n = 9000;
  for (const bool coarse : {false, true}) {
    const auto keys = coarse ? coarse_keys({n}, d.I) : random_keys({n}, d.I, "k");
    const TestPages pages(keys, d.I, d.I, DType::kF32);
    for (const int64_t topk : {1, 100, 3000}) {
      const TestRows last({1}, {n - 1}), batch({70}, {n - 70});
      const Tensor alone =
          select(cpu_simd(), one, Queries(one, d, last, coarse), last, pages.ref(), topk);
      const Tensor split =
          select(cpu_simd(), two, Queries(two, d, last, coarse), last, pages.ref(), topk);
      const Tensor all =
          select(cpu_simd(), two, Queries(two, d, batch, coarse), batch, pages.ref(), topk);
      CHECK(same_bits(split, alone));
      CHECK(row_of(all, 69) == row_of(alone, 0));
      if (coarse)
        CHECK(same_bits(
            alone, select(cpu_ref(), one, Queries(one, d, last, coarse), last, pages.ref(), topk)));
    }
  }
}

TEST_CASE("the selector: constant rows take the first keys, -0 equals +0, NaN and -inf come last") {
  TestExec t;
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  // With one head, one number and q = w = 1 the score is max(key, 0); with w = 0 or NaN it is
  // chosen freely.
  const auto pick = [&](const Kernels& kernels, std::vector<float> key, float q, float w,
                        int64_t topk) {
    const int n = static_cast<int>(key.size());
    const TestRows rows({1}, {n - 1});
    const TestPages pages({std::move(key)}, 1, 1, DType::kF32);
    Queries x(t, {1, 1}, rows);
    x.q.as<float>()[0] = q;
    x.w.as<float>()[0] = w;
    return row_of(select(kernels, t, x, rows, pages.ref(), topk), 0);
  };
  using Row = std::vector<int32_t>;
  for (const Kernels* k : {&cpu_ref(), &cpu_simd()}) {
    CAPTURE(k->name);
    CHECK(pick(*k, std::vector<float>(300, 2.f), 1, 1, 4) == Row{0, 1, 2, 3});
    CHECK(pick(*k, {1, 1, 1}, 1, 1, 5) == Row{0, 1, 2, -1, -1});
    CHECK(pick(*k, {-1, 0, -2, 0, 3}, 1, -1, 2) == Row{0, 1});  // -0 from the weight
    CHECK(pick(*k, {nan, 1, nan, 2, 3}, 1, 1, 3) == Row{1, 3, 4});
    CHECK(pick(*k, {nan, 1, nan, 2, 3}, 1, 1, 4) == Row{0, 1, 3, 4});
    CHECK(pick(*k, {inf, 1, nan, inf, 3}, 1, -1, 2) ==
          Row{1, 4});  // scores -inf, -1, NaN, -inf, -3
    CHECK(pick(*k, {inf, 1, nan, inf, 3}, 1, -1, 4) == Row{0, 1, 2, 4});
    CHECK(pick(*k, {1, inf, 2}, 1, 1, 1) == Row{1});
    std::vector<float> late(400, nan);
    late[399] = late[250] = 0;
    CHECK(pick(*k, late, 1, 1, 3) == Row{0, 250, 399});
  }
}

namespace {

struct KlOut {
  Tensor kl, mass, dq, dw, dk;
  std::vector<Tensor> all() const { return {kl, mass, dq, dw, dk}; }
};

KlOut run_kl(const Kernels& kernels, TestExec& t, const TestRows& rows, const Sizes& d, int64_t H,
             int64_t C, int64_t R, const Tensor& sel, int64_t mass_topk = 5) {
  const int64_t T = rows.rows();
  const Tensor q_attn = t.random({T, H, C + R}, "qa"), kv = t.random({T, C + R}, "kv");
  const Tensor q = t.random({T, d.J, d.I}, "q"), w = t.random({T, d.J}, "w"),
               k = t.random({T, d.I}, "k");
  const View q_lat = slice(q_attn, 2, 0, C), q_pe = slice(q_attn, 2, C, R);
  const Tensor z = t.make({T, H, C}), lse = t.make({T, H});
  std::vector<const void*> page;
  std::vector<int32_t> first_page;
  for (size_t b = 0; b < rows.first_pos.size(); ++b) {
    first_page.push_back(static_cast<int32_t>(page.size()));
    for (int r = rows.first_row[b]; r < rows.first_row[b + 1]; r += 64)
      page.push_back(kv.as<float>() + r * (C + R));
  }
  kernels.attention(t.exec, {.q_lat = q_lat,
                             .q_pe = q_pe,
                             .rows = rows.ref(),
                             .keys = {page.data(), first_page.data(), C + R, DType::kF32},
                             .sel = sel,
                             .scale = 0.2,
                             .z = z,
                             .lse = lse});
  const KlOut out{t.make({T}), t.make({T}), t.make({T, d.J, d.I}), t.make({T, d.J}),
                  t.make({T, d.I})};
  kernels.index_kl(t.exec, {.q = q,
                            .w = w,
                            .k = k,
                            .rows = rows.ref(),
                            .sel = sel,
                            .q_lat = q_lat,
                            .q_pe = q_pe,
                            .kv = kv,
                            .lse = lse,
                            .attn_scale = 0.2,
                            .kl = out.kl,
                            .mass = out.mass,
                            .mass_topk = mass_topk,
                            .scale = 0.7,
                            .dq = out.dq,
                            .dw = out.dw,
                            .dk = out.dk});
  return out;
}

}  // namespace

TEST_CASE("the indexer's KL and gradient equal the reference, dense and selected") {
  TestExec t;
  for (const Sizes& d : {Sizes{1, 1}, {3, 15}, {4, 32}, {9, 17}})
    for (const std::vector<int>& n : {std::vector<int>{1}, {63, 64, 5}, {65, 129}})
      for (const int64_t topk : {0, 7, 40}) {
        const TestRows rows(n);
        const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
        const auto got = run_kl(cpu_simd(), t, rows, d, 3, 17, 15, sel).all();
        const auto want = run_kl(cpu_ref(), t, rows, d, 3, 17, 15, sel).all();
        CAPTURE(d.J);
        CAPTURE(topk);
        for (size_t i = 0; i < got.size(); ++i) {
          CAPTURE(i);
          CHECK(relative_error(got[i], want[i]) < 5e-5);
        }
      }
}

TEST_CASE("the indexer's KL has equal bits on 1, 2 and 3 threads and every instruction set") {
  TestExec one, two(2), three(3);
  const Sizes d{3, 20};
  for (const int64_t topk : {0, 30}) {
    const TestRows rows({300, 1, 70});
    const Tensor sel = topk ? random_selection(one, rows, topk) : Tensor{};
    const auto want = run_kl(cpu_simd(), one, rows, d, 2, 16, 16, sel).all();
    const auto check = [&](const std::vector<Tensor>& got) {
      for (size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], want[i]));
    };
    check(run_kl(cpu_simd(), two, rows, d, 2, 16, 16, sel).all());
    check(run_kl(cpu_simd(), three, rows, d, 2, 16, 16, sel).all());
    testing::for_each_target(
        [&] { check(run_kl(cpu_simd(), one, rows, d, 2, 16, 16, sel).all()); });
  }
}

TEST_CASE("an index score is one fma chain per dot product and one over the heads") {
  TestExec t;
  const Sizes d{3, 19};
  const TestRows rows({80});
  const auto keys = random_keys({80}, d.I, "k");
  const TestPages pages(keys, d.I, d.I, DType::kF32);
  const Queries x(t, d, rows);
  testing::for_each_target([&] {
    const Tensor got = scores(cpu_simd(), t, x, rows, pages.ref(), 80);
    for (int r = 0; r < 80; ++r)
      for (int s = 0; s <= r; ++s) {
        float sum = 0;
        for (int j = 0; j < d.J; ++j) {
          float dot = 0;
          for (int i = 0; i < d.I; ++i)
            dot = std::fma(x.q.as<float>()[(r * d.J + j) * d.I + i],
                           keys[0][static_cast<size_t>(s * d.I + i)], dot);
          sum = std::fma(x.w.as<float>()[r * d.J + j], std::max(dot, 0.0f), sum);
        }
        REQUIRE(got.as<float>()[r * 80 + s] == sum);
      }
  });
}

}  // namespace fathom
