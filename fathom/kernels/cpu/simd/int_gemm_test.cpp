// Quantised weights: the products against cpu/ref bit for bit, and what coding loses.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/cpu/simd/int_tiles.h"
#include "fathom/kernels/gemm.h"
#include "fathom/kernels/kernels.h"
#include "fathom/tensor/arena.h"

namespace fathom {
namespace {

using testing::Aligned;
using testing::for_each_target;
using testing::random_floats;
using testing::same_bits;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Coded {
  PackedType type;
  int64_t n, k;
  std::vector<float> w;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  std::unique_ptr<Aligned> memory;
  PackedB packed;

  Coded(PackedType t, int64_t rows, int64_t columns, ThreadPool& pool, uint64_t seed = 5)
      : type(t), n(rows), k(columns), w(random_floats(rows * columns, seed)) {
    codes.resize(static_cast<size_t>(n * quant_row_bytes(type, k)));
    scales.resize(static_cast<size_t>(n * ceil_div(k, kQuantGroup)));
    quantize_rows(params(), pool);
    pack(pool);
  }
  void pack(ThreadPool& pool) {
    memory = std::make_unique<Aligned>(packed_size_bytes(type, n, k));
    packed = pack_nt({.type = type,
                      .n = n,
                      .k = k,
                      .src = codes.data(),
                      .ld = quant_row_bytes(type, k),
                      .scales = scales.data(),
                      .dst = memory->data()},
                     pool);
  }
  // Each code becomes the largest or the smallest one that a file can hold.
  void make_extreme(ThreadPool& pool) {
    for (uint8_t& c : codes)
      if (type == PackedType::kQ8)
        c = c & 0x80 ? 0x80 : 0x7F;
      else
        c = static_cast<uint8_t>((c & 0x08 ? 0x0F : 0) | (c & 0x80 ? 0xF0 : 0));
    pack(pool);
  }
  QuantizeParams params() {
    return {.type = type,
            .w = w.data(),
            .ld = k,
            .n = n,
            .k = k,
            .codes = codes.data(),
            .scales = scales.data()};
  }
  WeightRef raw() {
    const bool q8 = type == PackedType::kQ8;
    return {.raw = make_view(codes.data(), q8 ? DType::kI8 : DType::kU8, {n, q8 ? k : k / 2}),
            .scale = make_view(scales.data(), DType::kBF16, {n, ceil_div(k, kQuantGroup)})};
  }
};

std::vector<float> by_reference(Coded& w, std::vector<float>& x, int64_t lda, const int32_t* rows,
                                std::vector<float> c, int64_t m, int64_t ldc, bool add) {
  ThreadPool one(1);
  Arena arena;
  const int64_t source_rows = static_cast<int64_t>(x.size()) / lda;
  View xv = make_view(x.data(), DType::kF32, {source_rows, w.k});
  View yv = make_view(c.data(), DType::kF32, {m, w.n});
  xv.stride[0] = lda;
  yv.stride[0] = ldc;
  cpu_ref().linear({&one, &arena}, {.x = xv, .rows = rows, .w = w.raw(), .y = yv, .add = add});
  return c;
}

void check(PackedType type, int64_t m, int64_t n, int64_t k, ThreadPool& pool, bool add,
           bool gather) {
  Coded w(type, n, k, pool);
  const int64_t lda = k + 3, ldc = n + 2;
  auto x = random_floats((m + 2) * lda, 7);
  for (int64_t i = 0; i < std::min<int64_t>(k, 70); ++i) x[static_cast<size_t>(i)] = 0;
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < m; ++i) rows.push_back(static_cast<int32_t>((i * 3 + 1) % (m + 2)));
  auto c = random_floats(m * ldc, 8);
  const auto want = by_reference(w, x, lda, gather ? rows.data() : nullptr, c, m, ldc, add);
  gemm({.a = x.data(),
        .lda = lda,
        .a_rows = gather ? rows.data() : nullptr,
        .b = w.packed,
        .c = c.data(),
        .ldc = ldc,
        .m = m,
        .add = add},
       pool);
  CAPTURE(static_cast<int>(type));
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CHECK(same_bits(c, want));
}

}  // namespace

TEST_CASE("products with quantised weights have the reference's bits") {
  ThreadPool one(1), two(2);
  for_each_target([&] {
    for (const PackedType type : {PackedType::kQ8, PackedType::kQ4}) {
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 13, 16, 39, 50})
        check(type, m, 150, 320, two, false, false);
      check(type, 1, 1, 2, one, false, false);
      check(type, 2, 17, 126, one, true, true);
      check(type, 3, 130, 128, two, true, false);
      check(type, 8, 33, 130, two, true, true);
      check(type, 100, 70, 66, two, false, true);
      check(type, 6, 640, 512, two, false, false);
      check(type, 32, 40, 200, one, true, false);
      check(type, 120, 48, 256, two, false, true);
    }
  });
}

TEST_CASE("every tile of every way to add codes gives the same bits") {
  ThreadPool one(1);
  constexpr int64_t kRows = 6, kCols = 64, kGroups = 3, kDepth = kGroups * kQuantGroup;
  for_each_target([&] {
    for (const auto& [type, extreme] :
         std::vector<std::pair<PackedType, bool>>{{PackedType::kQ8, false},
                                                  {PackedType::kQ4, false},
                                                  {PackedType::kQ8, true},
                                                  {PackedType::kQ4, true}}) {
      CAPTURE(extreme);
      Coded w(type, kCols, kDepth, one);
      auto x = random_floats(kRows * kDepth, 9);
      if (extreme) {  // sums of two products are as large as they may become
        w.make_extreme(one);
        for (float& number : x) number = number < 0 ? -1.0f : 1.0f;
      }
      std::vector<int8_t> codes(kRows * kDepth);
      std::vector<float> scales(kRows * kGroups);
      std::vector<int32_t> shifts(kRows * kGroups);
      const simd::CodedRows coded{codes.data(), scales.data(), shifts.data(), kGroups};
      const auto want = by_reference(w, x, kDepth, nullptr, std::vector<float>(kRows * kCols),
                                     kRows, kCols, false);
      for (const simd::IntTable* t : simd::int_tables()) {
        t->code_rows({.a = x.data(),
                      .lda = kDepth,
                      .k = kDepth,
                      .end = kRows,
                      .offset = type == PackedType::kQ8 ? 128 : 8,
                      .to = coded});
        for (int rows = 1; rows <= t->max_rows; ++rows)
          for (int panels = 1; panels <= t->panels[rows]; ++panels) {
            std::vector<float> out(kRows * kCols);
            const auto& tiles = type == PackedType::kQ8 ? t->q8 : t->q4;
            tiles[rows][panels]({.a = coded,
                                 .b = static_cast<const uint8_t*>(w.packed.data),
                                 .scales = static_cast<const uint16_t*>(w.packed.scales),
                                 .out = out.data(),
                                 .ld_out = kCols,
                                 .cols = 16 * panels});
            bool same = true;
            for (int i = 0; i < rows; ++i)
              same = same && std::memcmp(&out[static_cast<size_t>(i * kCols)],
                                         &want[static_cast<size_t>(i * kCols)],
                                         static_cast<size_t>(16 * panels) * sizeof(float)) == 0;
            CAPTURE(rows);
            CAPTURE(panels);
            CHECK(same);
          }
      }
    }
  });
}

TEST_CASE("grouped products and rows alone have the bits of the whole") {
  ThreadPool one(1), two(2);
  for (const PackedType type : {PackedType::kQ8, PackedType::kQ4}) {
    std::vector<Coded> w;
    for (uint64_t e = 0; e < 4; ++e) w.emplace_back(type, 90, 192, one, e + 1);
    std::vector<PackedB> b;
    for (const Coded& one_weight : w) b.push_back(one_weight.packed);
    const std::vector<int32_t> offsets = {0, 3, 3, 40, 41};
    const auto x = random_floats(41 * 192, 11);
    std::vector<int32_t> rows;
    for (int32_t i = 0; i < 41; ++i) rows.push_back(i * 7 % 41);
    for (const bool gather : {false, true}) {
      std::vector<float> all(41 * 90), alone(41 * 90);
      gemm_grouped({.a = x.data(),
                    .lda = 192,
                    .a_rows = gather ? rows.data() : nullptr,
                    .b = b.data(),
                    .offsets = offsets.data(),
                    .groups = 4,
                    .c = all.data(),
                    .ldc = 90},
                   two);
      for (size_t e = 0; e < 4; ++e)
        for (int32_t i = offsets[e]; i < offsets[e + 1]; ++i)
          gemm({.a = x.data() + (gather ? rows[static_cast<size_t>(i)] : i) * 192,
                .lda = 192,
                .b = b[e],
                .c = alone.data() + i * 90,
                .ldc = 90,
                .m = 1},
               one);
      CHECK(same_bits(all, alone));
    }
  }
}

TEST_CASE("a chain of products has the bits of the products alone, in one region for few rows") {
  for (const int threads : {1, 2, 3})
    for (const int64_t m : {1, 5, 40}) {
      ThreadPool pool(threads);
      constexpr int64_t kHeads = 4, kIn = 192, kHead = 128, kOut = 320;
      std::vector<std::unique_ptr<Coded>> heads;
      for (int64_t h = 0; h < kHeads; ++h)
        heads.push_back(std::make_unique<Coded>(PackedType::kQ8, kHead, kIn, pool, 7 + h));
      const Coded last(PackedType::kQ4, kOut, kHeads * kHead, pool, 3);
      const std::vector<float> x = random_floats(m * kHeads * kIn, 11);
      const auto run = [&](bool chained) {
        std::vector<float> y(static_cast<size_t>(m * kHeads * kHead)),
            z(static_cast<size_t>(m * kOut));
        std::vector<GemmParams> first;
        for (int64_t h = 0; h < kHeads; ++h)
          first.push_back({.a = x.data() + h * kIn,
                           .lda = kHeads * kIn,
                           .b = heads[static_cast<size_t>(h)]->packed,
                           .c = y.data() + h * kHead,
                           .ldc = kHeads * kHead,
                           .m = m});
        const GemmParams then{.a = y.data(),
                              .lda = kHeads * kHead,
                              .b = last.packed,
                              .c = z.data(),
                              .ldc = kOut,
                              .m = m};
        const int64_t before = pool.num_regions();
        if (chained) {
          gemm_chain(first, {&then, 1}, pool);
        } else {
          gemm_many(first.data(), kHeads, pool);
          gemm(then, pool);
        }
        const int64_t regions = threads == 1 ? 0 : chained && m < 6 ? 1 : 2;
        CHECK(pool.num_regions() - before == regions);
        y.insert(y.end(), z.begin(), z.end());
        return y;
      };
      CAPTURE(threads);
      CAPTURE(m);
      CHECK(same_bits(run(true), run(false)));
    }
}

TEST_CASE("rows that are not finite or vanish stay so, and leave the others alone") {
  ThreadPool one(1);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for_each_target([&] {
    Coded w(PackedType::kQ8, 20, 128, one);
    auto x = random_floats(4 * 128, 12);
    x[5] = kNan;
    x[128 + 70] = -kInf;
    for (size_t i = 256; i < 384; ++i) x[i] *= 1e-36f;
    std::vector<float> c(4 * 20);
    gemm({.a = x.data(), .lda = 128, .b = w.packed, .c = c.data(), .ldc = 20, .m = 4}, one);
    CHECK(std::isnan(c[0]));
    CHECK(std::isnan(c[20 + 19]));
    CHECK(c[40] == 0);
    CHECK(std::isfinite(c[60]));
    CHECK(c[60] != 0);
  });
}

TEST_CASE("codes keep each weight within half a step; zero groups and bad numbers survive") {
  ThreadPool two(2);
  for (const PackedType type : {PackedType::kQ8, PackedType::kQ4}) {
    Coded w(type, 19, 300, two);
    for (size_t i = 0; i < 64; ++i) w.w[i] = 0;
    w.w[70] = std::numeric_limits<float>::quiet_NaN();
    quantize_rows(w.params(), two);
    std::vector<float> back(w.w.size());
    dequantize_rows(w.params(), back.data(), two);
    CHECK(back[0] == 0);
    CHECK(std::isnan(back[70]));
    double error = 0, size = 0;
    for (size_t i = 128; i < back.size(); ++i) {
      const float scale =
          to_float(bf16{w.scales[i / 300 * 5 + i % 300 / static_cast<size_t>(kQuantGroup)]});
      if (type == PackedType::kQ8) CHECK(std::fabs(back[i] - w.w[i]) <= 0.5001f * scale);
      error += std::pow(back[i] - w.w[i], 2);
      size += std::pow(w.w[i], 2);
    }
    // A uniform spread of width 2: the step is 2/255 or about 2/15.5, its rms a share of 12^(-1/2).
    CHECK(std::sqrt(error / size) < (type == PackedType::kQ8 ? 0.0042 : 0.066));
  }
}

}  // namespace fathom
