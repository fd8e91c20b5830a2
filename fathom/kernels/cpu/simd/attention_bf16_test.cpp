// Attention over bf16 latents on the matrix unit: its products against the plain loop.
#include "fathom/kernels/cpu/simd/attention_bf16.h"

#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

using simd::KeyChunk;
using testing::Aligned;

struct Bytes : Aligned {
  explicit Bytes(int64_t count) : Aligned(static_cast<size_t>(count)) {}
  std::byte* get() const { return static_cast<std::byte*>(data()); }
};

// Rows of bf16 with NaN behind each, and what they are in f32.
struct Latents {
  std::vector<uint16_t> half;
  std::vector<float> wide;
  std::vector<const void*> key;

  // `apart` numbers from each other; or, scattered, in descending order.
  Latents(int64_t n, int64_t width, int64_t apart, bool scattered)
      : half(static_cast<size_t>(n * apart), 0x7FC0), wide(static_cast<size_t>(n * width)) {
    const auto x = testing::random_floats(n * width, 5);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (scattered ? n - 1 - i : i) * apart;
      key.push_back(half.data() + at);
      for (int64_t c = 0; c < width; ++c) {
        const bf16 number = to_bf16(x[static_cast<size_t>(i * width + c)]);
        half[static_cast<size_t>(at + c)] = number.bits;
        wide[static_cast<size_t>(i * width + c)] = to_float(number);
      }
    }
  }
};

}  // namespace

TEST_CASE("attention on the matrix unit: scores and sums have the bits of the plain loop") {
  const simd::ChunkProducts* unit = simd::attention_bf16();
  if (!unit) return;  // no such unit
  for (const auto& [C, R] :
       {std::pair{1, 1}, {16, 16}, {33, 14}, {96, 32}, {64, 32}, {130, 5}, {512, 64}})
    for (const int64_t n : {1, 16, 33, 64, 100, 256})
      for (const int64_t rows : {1, 4, 8, 16})
        for (const auto& [scattered, in_place] :
             {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
          if (in_place && (C % 32 != 0 || R % 32 != 0)) continue;
          CAPTURE(in_place);
          CAPTURE(C);
          CAPTURE(n);
          CAPTURE(rows);
          const int64_t width = C + R, ld = rows * simd::kBlock, cols = unit->z_cols(C);
          const Latents latents(n, width, width + (scattered ? 3 : 0), scattered);
          const auto q = testing::random_floats(rows * width, 6);
          const auto p = testing::random_floats(simd::kChunkBlocks * ld, 7);
          const Bytes parts(unit->group_bytes(C, R));
          const Bytes block(unit->block_bytes(C, R)), whole(unit->whole_bytes(C));
          KeyChunk keys{.key = latents.key.data(),
                        .size = n,
                        .C = C,
                        .R = R,
                        .in_place = in_place,
                        .block = block.get(),
                        .whole = whole.get()};
          unit->load_queries(q.data(), width, rows, C, R, parts.get());
          std::vector<float> s(static_cast<size_t>(ld)), z(static_cast<size_t>(rows * cols));
          bool same = true;
          const auto at = [](const auto& v, int64_t i) { return v.data() + i; };
          for (int64_t k = 0; k < n; k += simd::kBlock) {
            unit->load_block(&keys, k / simd::kBlock);
            unit->score(parts.get(), keys, k / simd::kBlock, rows, s.data());
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t i = k; i < std::min(n, k + simd::kBlock); ++i)
                same &= *at(s, r * simd::kBlock + i - k) ==
                        ref::split_dot(at(q, r * width), 1, at(latents.wide, i * width), 1, width);
          }
          CHECK(same);
          // Probabilities behind the last key are 0.
          std::vector<float> shares(static_cast<size_t>(simd::kChunkBlocks * ld));
          for (int64_t i = 0; i < simd::kChunkBlocks * ld; ++i)
            if (i / ld * simd::kBlock + i % simd::kBlock < n)
              shares[static_cast<size_t>(i)] = p[static_cast<size_t>(i)];
          unit->weigh(shares.data(), ld, rows, keys, z.data(), cols);
          for (int64_t r = 0; r < rows; ++r) {
            unit->in_order(z.data() + r * cols, cols);
            std::vector<float> share;
            for (int64_t i = 0; i < n; ++i)
              share.push_back(*at(p, i / simd::kBlock * ld + r * simd::kBlock + i % simd::kBlock));
            for (int64_t c = 0; c < C; ++c)
              same &= *at(z, r * cols + c) ==
                      ref::split_dot(share.data(), 1, at(latents.wide, c), width, n);
          }
          CHECK(same);
        }
}

TEST_CASE("attention on the matrix unit: prefill, steps and threads give equal bits, near f64") {
  struct Shape {
    int64_t H, C, R;
  };
  TestExec one, two(2);
  const int n = 331;
  for (const Shape& d : {Shape{4, 96, 32}, {8, 64, 16}, {16, 33, 3}, {20, 128, 64}, {128, 32, 32}})
    for (const int64_t topk : {0, 70, 400}) {
      CAPTURE(d.H);
      CAPTURE(topk);
      const int64_t width = d.C + d.R;
      const TestPages pages(random_keys({n}, width, "kv"), width, width, DType::kBF16);
      const auto attend = [&](const Kernels& kernels, TestExec& t, int first, int count) {
        const TestRows rows({count}, {first});
        const Tensor all = t.random({n, d.H, width}, "query");
        const View q = slice(all, 0, first, count);
        const Tensor z = t.make({count, d.H, d.C});
        kernels.attention(t.exec, {.q_lat = slice(q, 2, 0, d.C),
                                   .q_pe = slice(q, 2, d.C, d.R),
                                   .rows = rows.ref(),
                                   .keys = pages.ref(),
                                   .sel = topk ? random_selection(t, rows, topk) : Tensor{},
                                   .scale = 0.2,
                                   .z = z});
        return z;
      };
      const Tensor whole = attend(cpu_simd(), one, 0, n);
      CHECK(relative_error(whole, attend(cpu_ref(), one, 0, n)) < 3e-6);
      if (topk == 400) {
        const Tensor dense = [&] {
          const TestRows rows({n});
          const Tensor q = one.random({n, d.H, width}, "query"), z = one.make({n, d.H, d.C});
          cpu_simd().attention(one.exec, {.q_lat = slice(q, 2, 0, d.C),
                                          .q_pe = slice(q, 2, d.C, d.R),
                                          .rows = rows.ref(),
                                          .keys = pages.ref(),
                                          .scale = 0.2,
                                          .z = z});
          return z;
        }();
        CHECK(same_bits(dense, whole));
      }
      for (const int at : {0, 15, 16, 63, 64, 257, n - 1})
        CHECK(same_bits(attend(cpu_simd(), two, at, 1), slice(whole, 0, at, 1)));
      CHECK(same_bits(attend(cpu_simd(), two, 200, n - 200), slice(whole, 0, 200, n - 200)));
    }
}

}  // namespace fathom
