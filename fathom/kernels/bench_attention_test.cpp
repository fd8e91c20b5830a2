#include "fathom/kernels/bench_attention.h"

#include <doctest/doctest.h>

#include "fathom/base/thread_pool.h"
#include "fathom/tensor/arena.h"

namespace fathom {

TEST_CASE("the attention bench checks its outputs and times each part") {
  ThreadPool pool(1);
  Arena arena;
  const AttentionBenchShape shape{.H = 2, .C = 16, .R = 4, .J = 2, .I = 8, .K = 32};
  AttentionBench bench(cpu_simd(), {&pool, &arena}, shape, 200);
  CHECK(bench.check() < 1e-5);
  for (const bool decode : {false, true}) {
    const AttentionBenchRow row =
        bench.run({.decode = decode, .position = 200, .chunk = 16}, 0.001);
    CHECK(row.repetitions >= 2);
    CHECK(row.dense_us > 0);
    CHECK(row.select_us + row.gathered_us > 0);
    CHECK(row.sparse_us >= row.select_us);
  }
}

TEST_CASE("the attention bench: index queries that are alike select the same keys") {
  ThreadPool pool(1);
  Arena arena;
  double before = 0;
  for (const double alike : {0.0, 0.9, 1.0}) {
    const AttentionBenchShape shape{
        .H = 2, .C = 32, .R = 32, .J = 2, .I = 32, .K = 32, .alike = alike};
    AttentionBench bench(cpu_simd(), {&pool, &arena}, shape, 400);
    CHECK(bench.check() < 1e-5);
    const double shared = bench.run({.position = 400, .chunk = 40}, 0.001).shared;
    CHECK(shared > before);
    before = shared;
  }
  CHECK(before > 0.9);  // each token has one key more to choose from
}

}  // namespace fathom
