#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

struct Sizes {
  int64_t H, N, R, V;
};

// Everything that a call writes, by name.
using Outputs = std::vector<Tensor>;

void check_close(const Outputs& got, const Outputs& want, double tol) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(got[i], want[i]) < tol);
  }
}

void check_same(const Outputs& got, const Outputs& want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(got[i], want[i]));
  }
}

// Forward and adjoint of the naive form; gradients start from `start` when adding.
Outputs run_mha(const Kernels& kernels, TestExec& t, const Sizes& d, const TestRows& rows,
                const Tensor& sel, bool add = false) {
  const int64_t T = rows.rows();
  const Tensor q = t.random({T, d.H, d.N + d.R}, "q"), kv = t.random({T, d.H, d.N + d.V}, "kv");
  const Tensor pe = t.random({T, d.R + 5}, "pe"), d_o = t.random({T, d.H, d.V}, "do");
  const Tensor o = t.make({T, d.H, d.V}), lse = t.make({T, d.H});
  const View q_nope = slice(q, 2, 0, d.N), q_pe = slice(q, 2, d.N, d.R);
  const View k_nope = slice(kv, 2, 0, d.N), v = slice(kv, 2, d.N, d.V), k_pe = slice(pe, 1, 2, d.R);
  kernels.attention_mha(t.exec, {.q_nope = q_nope,
                                 .q_pe = q_pe,
                                 .k_nope = k_nope,
                                 .v = v,
                                 .k_pe = k_pe,
                                 .rows = rows.ref(),
                                 .sel = sel,
                                 .scale = 0.3,
                                 .o = o,
                                 .lse = lse});
  const Tensor dq = t.random({T, d.H, d.N + d.R}, "dq"), dkv = t.random({T, d.H, d.N + d.V}, "dkv");
  const Tensor dpe = t.random({T, d.R + 5}, "dpe");
  kernels.attention_mha_bwd(t.exec, {.q_nope = q_nope,
                                     .q_pe = q_pe,
                                     .k_nope = k_nope,
                                     .v = v,
                                     .k_pe = k_pe,
                                     .rows = rows.ref(),
                                     .sel = sel,
                                     .scale = 0.3,
                                     .o = o,
                                     .lse = lse,
                                     .d_o = d_o,
                                     .dq_nope = slice(dq, 2, 0, d.N),
                                     .dq_pe = slice(dq, 2, d.N, d.R),
                                     .dk_nope = slice(dkv, 2, 0, d.N),
                                     .dv = slice(dkv, 2, d.N, d.V),
                                     .dk_pe = slice(dpe, 1, 2, d.R),
                                     .add_dq_nope = add,
                                     .add_dq_pe = add,
                                     .add_dk_nope = add,
                                     .add_dv = add,
                                     .add_dk_pe = add});
  return {o, lse, dq, dkv, dpe};
}

// Forward and adjoint of the absorbed form: N is C, V is not used.
Outputs run_latent(const Kernels& kernels, TestExec& t, const Sizes& d, const TestRows& rows,
                   const Tensor& sel, bool add = false) {
  const int64_t T = rows.rows();
  const Tensor q = t.random({T, d.H, d.N + d.R}, "q"), kv = t.random({T, d.N + d.R}, "kv");
  const Tensor dz = t.random({T, d.H, d.N}, "dz"), z = t.make({T, d.H, d.N}),
               lse = t.make({T, d.H});
  std::vector<const void*> page;
  std::vector<int32_t> first_page;
  for (size_t b = 0; b < rows.first_pos.size(); ++b) {
    first_page.push_back(static_cast<int32_t>(page.size()));
    for (int r = rows.first_row[b]; r < rows.first_row[b + 1]; r += 64)
      page.push_back(kv.as<float>() + r * (d.N + d.R));
  }
  const View q_lat = slice(q, 2, 0, d.N), q_pe = slice(q, 2, d.N, d.R);
  kernels.attention(t.exec, {.q_lat = q_lat,
                             .q_pe = q_pe,
                             .rows = rows.ref(),
                             .keys = {page.data(), first_page.data(), d.N + d.R, DType::kF32},
                             .sel = sel,
                             .scale = 0.3,
                             .z = z,
                             .lse = lse});
  const Tensor dq = t.random({T, d.H, d.N + d.R}, "dq"), dkv = t.random({T, d.N + d.R}, "dkv");
  kernels.attention_bwd(t.exec, {.q_lat = q_lat,
                                 .q_pe = q_pe,
                                 .rows = rows.ref(),
                                 .kv = kv,
                                 .sel = sel,
                                 .scale = 0.3,
                                 .z = z,
                                 .lse = lse,
                                 .dz = dz,
                                 .dq_lat = slice(dq, 2, 0, d.N),
                                 .dq_pe = slice(dq, 2, d.N, d.R),
                                 .add_dq_lat = add,
                                 .add_dq_pe = add,
                                 .dkv = dkv,
                                 .add_dkv = add});
  return {z, lse, dq, dkv};
}

const Sizes kSizes[] = {
    {1, 1, 1, 1}, {3, 15, 17, 33}, {4, 48, 16, 48}, {2, 33, 15, 16}, {9, 16, 2, 15}};
const std::vector<int> kSeqs[] = {{1}, {63, 64}, {65, 2, 129}, {200}};

}  // namespace

TEST_CASE("naive attention and its adjoint equal the reference over odd sizes and selections") {
  TestExec t;
  for (const Sizes& d : kSizes)
    for (const std::vector<int>& n : kSeqs)
      for (const int64_t topk : {0, 1, 33, 64}) {
        const TestRows rows(n);
        const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
        CAPTURE(d.N);
        CAPTURE(topk);
        check_close(run_mha(cpu_simd(), t, d, rows, sel, topk == 1),
                    run_mha(cpu_ref(), t, d, rows, sel, topk == 1), 3e-5);
      }
}

TEST_CASE("the adjoint of latent attention equals the reference over odd sizes and selections") {
  TestExec t;
  for (const Sizes& d : kSizes)
    for (const std::vector<int>& n : kSeqs)
      for (const int64_t topk : {0, 1, 33, 64}) {
        const TestRows rows(n);
        const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
        CAPTURE(d.N);
        CAPTURE(topk);
        check_close(run_latent(cpu_simd(), t, d, rows, sel, topk == 1),
                    run_latent(cpu_ref(), t, d, rows, sel, topk == 1), 3e-5);
      }
}

TEST_CASE(
    "attention and its adjoints give equal bits on 1, 2 and 3 threads and every instruction set") {
  TestExec one, two(2), three(3);
  const Sizes d{2, 17, 16, 15};
  for (const std::vector<int>& n : {std::vector<int>{700}, {70, 3, 65, 1, 9, 8, 7, 6, 5, 4, 3, 2}})
    for (const int64_t topk : {0, 40}) {
      const TestRows rows(n);
      const Tensor sel = topk ? random_selection(one, rows, topk) : Tensor{};
      for (const auto run : {run_mha, run_latent}) {
        const Outputs want = run(cpu_simd(), one, d, rows, sel, false);
        check_same(run(cpu_simd(), two, d, rows, sel, false), want);
        check_same(run(cpu_simd(), three, d, rows, sel, false), want);
        testing::for_each_target(
            [&] { check_same(run(cpu_simd(), one, d, rows, sel, false), want); });
      }
    }
}

TEST_CASE("a fully selected row has the bits of dense attention in the naive form") {
  TestExec t;
  const TestRows rows({150});
  const Sizes d{2, 16, 16, 20};
  check_same(run_mha(cpu_simd(), t, d, rows, random_selection(t, rows, 150)),
             run_mha(cpu_simd(), t, d, rows, {}));
}

}  // namespace fathom
