#include "fathom/kernels/bench_exactness.h"

#include <doctest/doctest.h>

#include "fathom/base/thread_pool.h"
#include "fathom/tensor/arena.h"

namespace fathom {
namespace {

TEST_CASE("loose variants compute what the exact kernels compute, in other bits") {
  ThreadPool pool(2);
  Arena arena;
  const Exec exec{&pool, &arena};
  const ExactnessCase f32{.m = 3, .products = {{.n = 70, .k = 1500}, {.n = 33, .k = 200}}};
  const ExactnessCase q8{.type = PackedType::kQ8, .m = 2, .products = {{.n = 96, .k = 2100}}};
  const ExactnessCase attention{.attention = {.heads = 3, .latent = 48, .rope = 16, .layers = 2},
                                .keys = 700};
  const ExactnessResult a = measure_exactness(cpu_simd(), exec, f32, 0),
                        b = measure_exactness(cpu_simd(), exec, q8, 0),
                        c = measure_exactness(cpu_simd(), exec, attention, 0);
  CHECK(a.loose.size() == 3);
  CHECK(b.loose.size() == 1);
  CHECK(c.loose.size() == 1);
  for (const ExactnessResult* r : {&a, &b, &c})
    for (const LooseResult& l : r->loose) {
      CHECK(l.error < 1e-5);
      if (l.name != "each the fastest") CHECK(!l.same_bits);
      CHECK(l.best_s > 0);
      CHECK(r->fastest().cost >= l.cost);
    }
}

}  // namespace
}  // namespace fathom
