#include "fathom/ops/basic.h"

#include <doctest/doctest.h>

#include <cmath>

#include "fathom/ops/grad_check.h"

namespace fathom {
namespace {

TEST_CASE("grad_check sees a wrong adjoint") {
  Bench64 b;
  const Value x = b.leaf({2, 3});
  const auto wrong = [&](Ctx& ctx) {
    Value y = ctx.make_like(x, {&x});
    ctx.kernels.accumulate(ctx.exec(), {.x = x, .y = y, .scale = 2, .add = false});
    ctx.on_backward(y, [k = &ctx.kernels, exec = ctx.exec(), x, y] {
      const GradSink dx = x.grad_sink(*exec.arena);
      k->accumulate(exec, {.x = y.grad(), .y = dx.view, .scale = 2.001, .add = dx.add});
    });
    return Checked(y);
  };
  CHECK(grad_check(b, {x}, wrong).find("leaf 0 at [") == 0);
}

TEST_CASE("adjoint of rms_norm") {
  Bench64 b;
  const Value x = b.leaf({3, 7}), g = b.leaf({7});
  CHECK(grad_check(b, {x, g}, [&](Ctx& ctx) { return Checked(rms_norm(ctx, x, g, 1e-2)); }) == "");
  SUBCASE("of a slice, beside a second reader of the same rows") {
    const Value wide = b.leaf({3, 12});
    CHECK(grad_check(b, {wide, g}, [&](Ctx& ctx) {
            const auto [left, right] = split_last(wide, 5, 7);
            Value y = rms_norm(ctx, right, g, 1e-2);
            return Checked(add(ctx, y, right));
          }) == "");
  }
  SUBCASE("with a frozen gain") {
    const Value frozen = detach(g);
    CHECK(grad_check(b, {x}, [&](Ctx& ctx) { return Checked(rms_norm(ctx, x, frozen, 1e-2)); }) ==
          "");
  }
}

TEST_CASE("adjoint of layer_norm") {
  Bench64 b;
  const Value x = b.leaf({4, 6}), g = b.leaf({6}), bias = b.leaf({6});
  CHECK(grad_check(b, {x, g, bias},
                   [&](Ctx& ctx) { return Checked(layer_norm(ctx, x, g, bias, 1e-3)); }) == "");
  const Value frozen = detach(x);
  CHECK(grad_check(b, {g, bias}, [&](Ctx& ctx) {
          return Checked(layer_norm(ctx, frozen, g, bias, 1e-3));
        }) == "");
}

TEST_CASE("adjoint of rope in both layouts, with an amplitude, on slices") {
  Bench64 b;
  const int32_t pos[3] = {0, 5, 1000};
  const RopeTable table{{1.0, 0.3, 0.001}, 1.25};
  const Value x = b.leaf({3, 2, 10});
  for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves})
    CHECK(grad_check(b, {x}, [&](Ctx& ctx) {
            return Checked(rope(ctx, slice(x, 2, 4, 6), pos, table, pairs));
          }) == "");
}

TEST_CASE("rope keeps position 0, and interleaved equals half-split after the permutation") {
  Bench64 b;
  const int32_t pos[2] = {0, 7};
  const RopeTable table{{1.0, 0.25}, 1};
  Ctx ctx = b.ctx(nullptr);
  const Value x = b.leaf({2, 1, 4});
  const Value permuted = constant(empty(b.arena, DType::kF64, {2, 1, 4}));
  for (int t = 0; t < 2; ++t)
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half)
        permuted->as<double>()[t * 4 + half * 2 + i] = x->as<double>()[t * 4 + 2 * i + half];
  const Value y = rope(ctx, x, pos, table, RopePairs::kInterleaved);
  const Value z = rope(ctx, permuted, pos, table, RopePairs::kHalves);
  for (int t = 0; t < 2; ++t)
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half)
        CHECK(z->as<double>()[t * 4 + half * 2 + i] == y->as<double>()[t * 4 + 2 * i + half]);
  for (int i = 0; i < 4; ++i) CHECK(y->as<double>()[i] == x->as<double>()[i]);
}

TEST_CASE("adjoint of swiglu, also of the two halves of one tensor") {
  Bench64 b;
  const Value gate = b.leaf({3, 5}), up = b.leaf({3, 5}), both = b.leaf({3, 10});
  CHECK(grad_check(b, {gate, up}, [&](Ctx& ctx) { return Checked(swiglu(ctx, gate, up)); }) == "");
  CHECK(grad_check(b, {both}, [&](Ctx& ctx) {
          const auto [g, u] = split_last(both, 5, 5);
          return Checked(swiglu(ctx, g, u));
        }) == "");
  const Value frozen = detach(gate);
  CHECK(grad_check(b, {up}, [&](Ctx& ctx) { return Checked(swiglu(ctx, frozen, up)); }) == "");
  // `gate` has a gradient already when the product's adjoint arrives, `up` has none.
  CHECK(grad_check(b, {gate, up}, [&](Ctx& ctx) {
          const Value y = swiglu(ctx, gate, up);
          return Checked(add(ctx, y, gate));
        }) == "");
}

TEST_CASE("adjoint of add, also of a tensor with itself") {
  Bench64 b;
  const Value x = b.leaf({2, 3}), y = b.leaf({2, 3});
  CHECK(grad_check(b, {x, y}, [&](Ctx& ctx) { return Checked(add(ctx, x, y)); }) == "");
  CHECK(grad_check(b, {x}, [&](Ctx& ctx) { return Checked(add(ctx, x, x)); }) == "");
}

TEST_CASE("adjoint of concat_last for rows, heads and strided slices") {
  Bench64 b;
  const Value x = b.leaf({3, 4}), y = b.leaf({3, 2});
  CHECK(grad_check(b, {x, y}, [&](Ctx& ctx) { return Checked(concat_last(ctx, x, y)); }) == "");
  const Value u = b.leaf({3, 2, 5}), v = b.leaf({3, 4, 3});
  CHECK(grad_check(b, {u, v}, [&](Ctx& ctx) {
          return Checked(concat_last(ctx, slice(u, 2, 1, 3), slice(v, 1, 1, 2)));
        }) == "");
  CHECK(grad_check(b, {x}, [&](Ctx& ctx) {  // crossed halves of one tensor
          const auto [left, right] = split_last(x, 2, 2);
          return Checked(concat_last(ctx, right, left));
        }) == "");
  Ctx ctx = b.ctx(nullptr);
  const Value z = concat_last(ctx, slice(u, 2, 1, 3), slice(v, 1, 1, 2));
  CHECK(z->as<double>()[(1 * 2 + 1) * 6 + 2] == u->as<double>()[(1 * 2 + 1) * 5 + 3]);
  CHECK(z->as<double>()[(2 * 2 + 1) * 6 + 4] == v->as<double>()[(2 * 4 + 2) * 3 + 1]);
}

TEST_CASE("adjoint of embedding and of select_rows with repeated rows") {
  Bench64 b;
  const Value table = b.leaf({5, 3}), x = b.leaf({4, 6});
  const int32_t ids[4] = {2, 0, 2, 4};
  const int32_t rows[3] = {3, 3, 1};
  CHECK(grad_check(b, {table}, [&](Ctx& ctx) { return Checked(embedding(ctx, ids, 4, table)); }) ==
        "");
  CHECK(grad_check(b, {x}, [&](Ctx& ctx) {
          return Checked(select_rows(ctx, slice(x, 1, 2, 3), rows, 3));
        }) == "");
  Ctx ctx = b.ctx(nullptr);
  const int32_t outside[1] = {5};
  CHECK_THROWS(embedding(ctx, outside, 1, table));
  CHECK(embedding(ctx, ids, 0, table)->numel() == 0);
}

TEST_CASE("columns of a gradient are written one by one, and what nobody wrote is zero") {
  Bench64 b;
  const Value x = b.leaf({2, 12});  // two rows of two heads of six columns
  x.grad_sink(b.arena).view.as<double>()[5] = 7;
  x.node()->grad_written = false;
  const Value heads = split_dim(x, 2, 6);
  const auto write = [&](int64_t begin, int64_t size, double to) {
    const GradSink sink = slice(heads, 2, begin, size).grad_sink(b.arena);
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t k = 0; k < size; ++k) sink.view.as<double>()[i * 6 + k] = to;
    return sink.add;
  };
  CHECK(!x.has_grad());
  CHECK(!write(0, 3, 1));
  CHECK(x.has_grad());
  CHECK(!write(4, 2, 2));
  const double* dx = x.grad().as<double>();  // column 3 of every head is missing
  for (int64_t i = 0; i < 24; ++i) CHECK(dx[i] == (i % 6 < 3 ? 1 : i % 6 == 3 ? 0 : 2));
  CHECK(write(3, 1, 5));
  x.node()->grad_written = false;
  CHECK(!write(3, 3, 1));
  CHECK(write(2, 2, 4));  // overlaps: everything else is zero from here on
  CHECK(dx[0] == 0);
  CHECK(dx[4] == 1);
  x.node()->grad_written = false;
  CHECK(!write(0, 4, 1));
  CHECK(!write(4, 2, 1));
  CHECK(x.grad_sink(b.arena).add);
  x.node()->grad_written = false;
  CHECK(slice(x, 0, 1, 1).grad_sink(b.arena).add);  // rows: the rest is zeroed
  CHECK(dx[0] == 0);
}

TEST_CASE("ops take no rows, and a second use of a leaf adds up") {
  Bench64 b;
  const Value x = b.leaf({2, 4}), g = b.leaf({4});
  Ctx ctx = b.ctx(nullptr);
  CHECK(rms_norm(ctx, slice(x, 0, 0, 0), g, 1e-6)->numel() == 0);
  CHECK(grad_check(b, {x, g}, [&](Ctx& c) {
          const Value once = rms_norm(c, x, g, 1e-2);
          return Checked(rms_norm(c, once, g, 1e-2));
        }) == "");
}

}  // namespace
}  // namespace fathom
