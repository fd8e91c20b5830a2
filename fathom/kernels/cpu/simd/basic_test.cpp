// Norms, rotation, element-wise kernels and the embedding against the reference.
#include "fathom/kernels/cpu/simd/kernel_testing.h"

namespace fathom {
namespace {

using testing::Call;
using testing::check_kernel;
using testing::Field;

// A fresh output, or one with values when the kernel adds to it.
Field output(const Call& c, int64_t T, int64_t D, uint64_t seed) {
  return Field(T, D, c.add ? seed : 0);
}

TEST_CASE("simd rms_norm") {
  check_kernel([](const Call& c) {
    Field x(c.T, c.D, 1, 3), g(1, c.D, 2), y(c.T, c.D, 0), r(1, c.T, 0);
    View inv_rms = slice(r.vector(), 0, c.begin, c.rows);
    if (c.add) inv_rms = {};
    c.k.rms_norm(c.exec, {.x = x.view(c.begin, c.rows),
                          .g = g.vector(),
                          .y = y.view(c.begin, c.rows),
                          .inv_rms = inv_rms,
                          .eps = 1e-6});
    return std::vector{y};
  });
}

TEST_CASE("simd add_norm: the bits of add and rms_norm, also over an input") {
  check_kernel([](const Call& c) {
    Field a(c.T, c.D, 1, 3), b(c.T, c.D, 2), g(1, c.D, 3), sum(c.T, c.D, 0), y(c.T, c.D, 0);
    const View a_TD = a.view(c.begin, c.rows), b_TD = b.view(c.begin, c.rows),
               sum_TD = sum.view(c.begin, c.rows), y_TD = y.view(c.begin, c.rows);
    c.k.add_norm(c.exec,
                 {.a = a_TD, .b = b_TD, .g = g.vector(), .sum = sum_TD, .y = y_TD, .eps = 1e-6});
    Field want_sum(c.T, c.D, 0), want_y(c.T, c.D, 0);
    const View s_TD = want_sum.view(c.begin, c.rows), n_TD = want_y.view(c.begin, c.rows);
    c.k.add(c.exec, {.a = a_TD, .b = b_TD, .y = s_TD});
    c.k.rms_norm(c.exec, {.x = s_TD, .g = g.vector(), .y = n_TD, .inv_rms = {}, .eps = 1e-6});
    CHECK(sum.same_bits(want_sum));
    CHECK(y.same_bits(want_y));
    Field over(c.T, c.D, 0);
    c.k.add_norm(c.exec, {.a = a_TD,
                          .b = b_TD,
                          .g = g.vector(),
                          .sum = b_TD,
                          .y = over.view(c.begin, c.rows),
                          .eps = 1e-6});
    CHECK(over.same_bits(want_y));
    return std::vector{sum, y};
  });
}

TEST_CASE("simd rms_norm_bwd: dx by rows, dg in a fixed order of rows") {
  const auto run = [](const Call& c) {
    Field x(c.T, c.D, 1), g(1, c.D, 2), r(1, c.T, 3), dy(c.T, c.D, 4), dx = output(c, c.T, c.D, 5),
                                                                       dg = output(c, 1, c.D, 6);
    c.k.rms_norm_bwd(c.exec, {.x = x.view(c.begin, c.rows),
                              .g = g.vector(),
                              .inv_rms = slice(r.vector(), 0, c.begin, c.rows),
                              .dy = dy.view(c.begin, c.rows),
                              .dx = dx.view(c.begin, c.rows),
                              .dg = dg.vector(),
                              .add_dx = c.add,
                              .add_dg = c.add});
    return std::vector{dx, dg};
  };
  check_kernel(run, {.row_exact = false});
  const auto only_dx = [&](const Call& c) { return std::vector{run(c)[0]}; };
  check_kernel(only_dx);
  check_kernel(
      [](const Call& c) {  // a frozen input
        Field x(c.T, c.D, 1), g(1, c.D, 2), r(1, c.T, 3), dy(c.T, c.D, 4),
            dg = output(c, 1, c.D, 6);
        c.k.rms_norm_bwd(c.exec, {.x = x.view(),
                                  .g = g.vector(),
                                  .inv_rms = r.vector(),
                                  .dy = dy.view(),
                                  .dg = dg.vector(),
                                  .add_dg = c.add});
        return std::vector{dg};
      },
      {.row_exact = false});
}

TEST_CASE("simd layer_norm") {
  check_kernel([](const Call& c) {
    Field x(c.T, c.D, 1, 3), g(1, c.D, 2), b(1, c.D, 3), y(c.T, c.D, 0), mean(1, c.T, 0),
        inv_std(1, c.T, 0);
    c.k.layer_norm(c.exec, {.x = x.view(c.begin, c.rows),
                            .g = g.vector(),
                            .b = b.vector(),
                            .y = y.view(c.begin, c.rows),
                            .mean = slice(mean.vector(), 0, c.begin, c.rows),
                            .inv_std = slice(inv_std.vector(), 0, c.begin, c.rows),
                            .eps = 1e-3});
    return std::vector{y};
  });
}

TEST_CASE("simd layer_norm_bwd") {
  check_kernel(
      [](const Call& c) {
        Field x(c.T, c.D, 1), g(1, c.D, 2), mean(1, c.T, 3), inv_std(1, c.T, 7), dy(c.T, c.D, 4),
            dx = output(c, c.T, c.D, 5), dg = output(c, 1, c.D, 6), db = output(c, 1, c.D, 8);
        c.k.layer_norm_bwd(c.exec, {.x = x.view(c.begin, c.rows),
                                    .g = g.vector(),
                                    .mean = slice(mean.vector(), 0, c.begin, c.rows),
                                    .inv_std = slice(inv_std.vector(), 0, c.begin, c.rows),
                                    .dy = dy.view(c.begin, c.rows),
                                    .dx = dx.view(c.begin, c.rows),
                                    .dg = dg.vector(),
                                    .db = db.vector(),
                                    .add_dx = c.add,
                                    .add_dg = c.add,
                                    .add_db = c.add});
        return std::vector{dx, dg, db};
      },
      {.row_exact = false});
}

// Splits the columns of a field into two heads of even width, the odd rest unused.
View two_heads(View v, int64_t R) {
  v.rank = 3;
  v.dim[1] = 2, v.dim[2] = R;
  v.stride[1] = R, v.stride[2] = 1;
  return v;
}

TEST_CASE("simd rope in both layouts and directions, positions in a row, repeated or scattered") {
  for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves})
    for (const bool inverse : {false, true})
      for (const int spread : {0, 1, 2}) {
        const auto run = [&](const Call& c) {
          const int64_t R = c.D / 2;
          Field x(c.T, c.D, 1), y = output(c, c.T, c.D, 2);
          std::vector<int32_t> pos;
          for (int64_t t = 0; t < c.T; ++t)
            pos.push_back(static_cast<int32_t>(spread == 0   ? t + 30
                                               : spread == 1 ? t % 70
                                                             : t * 1009 % 160000));
          std::vector<double> inv_freq;
          for (int64_t i = 0; i < R / 2; ++i)
            inv_freq.push_back(std::pow(1e4, -2 * static_cast<double>(i) / static_cast<double>(R)));
          c.k.rope(c.exec, {.x = two_heads(x.view(c.begin, c.rows), R),
                            .pos = pos.data() + c.begin,
                            .inv_freq = inv_freq.data(),
                            .amplitude = 1.25,
                            .pairs = pairs,
                            .inverse = inverse,
                            .y = two_heads(y.view(c.begin, c.rows), R),
                            .add = c.add});
          return std::vector{y};
        };
        check_kernel(run, {.tolerance = 3e-7, .widths = {4, 28, 32, 36, 68, 128}});
      }
}

TEST_CASE("simd rope may write over its input") {
  ThreadPool pool(1);
  Arena arena;
  const int32_t pos[3] = {0, 1, 200};
  const std::vector<double> inv_freq(9, 0.1);
  for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves}) {
    Field x(3, 36, 1), y(3, 36, 0);
    const auto call = [&](Field& to) {
      cpu_simd().rope({&pool, &arena}, {.x = two_heads(x.view(), 18),
                                        .pos = pos,
                                        .inv_freq = inv_freq.data(),
                                        .pairs = pairs,
                                        .y = two_heads(to.view(), 18)});
    };
    call(y);
    call(x);
    CHECK(x.same_bits(y));
  }
}

TEST_CASE("simd add and accumulate") {
  check_kernel(
      [](const Call& c) {
        Field a(c.T, c.D, 1), b(c.T, c.D, 2), y(c.T, c.D, 0), z = output(c, c.T, c.D, 3);
        c.k.add(c.exec, {.a = a.view(c.begin, c.rows),
                         .b = b.view(c.begin, c.rows),
                         .y = y.view(c.begin, c.rows)});
        c.k.accumulate(c.exec, {.x = a.view(c.begin, c.rows),
                                .y = z.view(c.begin, c.rows),
                                .scale = 0.37,
                                .add = c.add});
        return std::vector{y, z};
      },
      {.widths = {0, 1, 15, 16, 17, 33, 100}});
}

TEST_CASE("simd swiglu and its adjoint") {
  check_kernel(
      [](const Call& c) {
        Field gate(c.T, c.D, 1, 20), up(c.T, c.D, 2), y(c.T, c.D, 0);
        c.k.swiglu(c.exec, {.gate = gate.view(c.begin, c.rows),
                            .up = up.view(c.begin, c.rows),
                            .y = y.view(c.begin, c.rows)});
        return std::vector{y};
      },
      {.widths = {0, 1, 15, 16, 17, 33, 100}});
  check_kernel([](const Call& c) {
    Field gate(c.T, c.D, 1, 20), up(c.T, c.D, 2), dy(c.T, c.D, 3), dgate = output(c, c.T, c.D, 4),
                                                                   dup = output(c, c.T, c.D, 5);
    c.k.swiglu_bwd(c.exec, {.gate = gate.view(c.begin, c.rows),
                            .up = up.view(c.begin, c.rows),
                            .dy = dy.view(c.begin, c.rows),
                            .dgate = dgate.view(c.begin, c.rows),
                            .dup = dup.view(c.begin, c.rows),
                            .add = c.add});
    return std::vector{dgate, dup};
  });
}

TEST_CASE("simd embed and embed_bwd with repeated ids, tables of every float type") {
  const auto ids = [](int64_t T) {
    std::vector<int32_t> v;
    for (int64_t t = 0; t < T; ++t) v.push_back(static_cast<int32_t>(t * t % 7));
    return v;
  };
  check_kernel(
      [&](const Call& c) {
        Field table(7, c.D, 1), y(c.T, c.D, 0);
        const auto rows = ids(c.T);
        c.k.embed(
            c.exec,
            {.ids = rows.data() + c.begin, .table = table.view(), .y = y.view(c.begin, c.rows)});
        return std::vector{y};
      },
      {.tolerance = 0});
  for (const DType dtype : {DType::kBF16, DType::kF16})
    check_kernel(
        [&](const Call& c) {
          std::vector<uint16_t> table(static_cast<size_t>(7 * c.D));
          for (size_t i = 0; i < table.size(); ++i)
            table[i] = static_cast<uint16_t>(i * 37 % 0x7000);
          Field y(c.T, c.D, 0);
          const auto rows = ids(c.T);
          c.k.embed(c.exec, {.ids = rows.data() + c.begin,
                             .table = make_view(table.data(), dtype, {7, c.D}),
                             .y = y.view(c.begin, c.rows)});
          return std::vector{y};
        },
        {.tolerance = 0});
  check_kernel(
      [&](const Call& c) {
        Field dtable(7, c.D, 1), dy(c.T, c.D, 2);
        const auto rows = ids(c.T);
        c.k.embed_bwd(c.exec, {.ids = rows.data(), .dy = dy.view(), .dtable = dtable.view()});
        return std::vector{dtable};
      },
      {.tolerance = 0, .row_exact = false});
}

TEST_CASE("simd kernels hand f64 tensors to the reference") {
  ThreadPool pool(1);
  Arena arena;
  const Exec exec{&pool, &arena};
  std::vector<double> x = {1, 2, 3, 4}, y(4), z(4);
  const View vx = make_view(x.data(), DType::kF64, {2, 2}),
             vy = make_view(y.data(), DType::kF64, {2, 2}),
             vz = make_view(z.data(), DType::kF64, {2, 2});
  cpu_simd().swiglu(exec, {.gate = vx, .up = vx, .y = vy});
  cpu_ref().swiglu(exec, {.gate = vx, .up = vx, .y = vz});
  CHECK(y == z);
}

}  // namespace
}  // namespace fathom
