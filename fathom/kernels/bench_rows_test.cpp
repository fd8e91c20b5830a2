#include "fathom/kernels/bench_rows.h"

#include <doctest/doctest.h>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"

namespace fathom {
namespace {

constexpr RowBenchSizes kTiny{.T = 40,
                              .D = 32,
                              .F = 48,
                              .E = 8,
                              .A = 2,
                              .W = 50,
                              .loss_rows = 10,
                              .num_seq = 2,
                              .L = 70,
                              .H = 2,
                              .C = 16,
                              .R = 4,
                              .N = 8,
                              .V = 8,
                              .J = 2,
                              .I = 8,
                              .K = 16,
                              .params = 500,
                              .stream_bytes = 1 << 20};

template <class P>
void does_nothing(const Exec&, const P&) {}

// Every slot but packing leaves its outputs alone.
Kernels idle_kernels() {
  Kernels k = cpu_simd();
  const auto idle = [](auto&... slot) {
    (..., [&]<class P>(void (*&f)(const Exec&, const P&)) { f = does_nothing<P>; }(slot));
  };
  idle(k.head_linear, k.head_linear_dw, k.rms_norm, k.add_norm, k.rms_norm_bwd, k.layer_norm,
       k.layer_norm_bwd, k.rope, k.add, k.accumulate, k.swiglu, k.swiglu_bwd, k.embed, k.embed_bwd,
       k.gate, k.gate_bwd, k.balance, k.combine, k.expert_bwd, k.gather_bwd, k.attention,
       k.attention_bwd, k.attention_mha, k.attention_mha_bwd, k.index_select, k.index_scores,
       k.index_kl, k.act_quant, k.weight_quant, k.hadamard, k.round_bf16, k.cross_entropy, k.adamw,
       k.sum_squares);
  return k;
}

TEST_CASE("every row of the kernel bench runs, and its output is the reference's") {
  RowBench bench(cpu_simd(), kTiny);
  ThreadPool pool(2);
  for (const RowBenchCase& c : row_bench_cases(kTiny)) {
    CAPTURE(c.name);
    const RowBenchResult r = bench.run(c.name, pool, 0);
    CAPTURE(r.error);
    CHECK(r.checked);
    CHECK(r.time.repetitions >= 5);
    CHECK(r.time.threads == 2);
    CHECK(r.time.rate > 0);
    CHECK(r.time.percent_of_peak > 0);
  }
  CHECK_THROWS_AS(bench.run("no such kernel", pool, 0), Error);
}

TEST_CASE("every row of the kernel bench notices a kernel that does nothing") {
  const Kernels idle = idle_kernels();
  RowBench bench(idle, kTiny);
  ThreadPool pool(1);
  for (const RowBenchCase& c : row_bench_cases(kTiny)) {
    CAPTURE(c.name);
    CHECK_FALSE(bench.run(c.name, pool, 0).checked);
  }
}

TEST_CASE("the kernel bench notices one wrong number") {
  Kernels wrong = cpu_simd();
  wrong.swiglu = [](const Exec& e, const Swiglu& a) {
    cpu_simd().swiglu(e, a);
    a.y.as<float>()[a.y.numel() / 2] += 1e-3f;
  };
  RowBench bench(wrong, kTiny);
  ThreadPool pool(1);
  const RowBenchResult r = bench.run("swiglu", pool, 0);
  CHECK_FALSE(r.checked);
  CHECK(r.error > 1e-6);
  CHECK(r.error < 1e-2);
  CHECK(bench.run("swiglu_bwd", pool, 0).checked);
}

}  // namespace
}  // namespace fathom
