// Attention over latents in integer codes: the codes, the ways to multiply them, whole rows.
#include "fathom/kernels/cpu/simd/attention_codes.h"

#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

struct Shape {
  int64_t H, C, R;
};

// Pages of one sequence in shuffled order, with NaN behind the last key.
struct LatentPages {
  std::vector<std::vector<char>> data;
  std::vector<const void*> page;
  int32_t first_page = 0;
  KeyPages keys;

  LatentPages(const Kernels& kernels, TestExec& t, const Tensor& rows, int64_t C) {
    const int64_t n = rows.view.dim[0], bytes = coded_row_bytes(C, rows.view.dim[1] - C);
    for (int64_t at = 0; at < n; at += kPageTokens) {
      data.emplace_back(static_cast<size_t>(kPageTokens * bytes), char{-1});
      kernels.latent_code(t.exec, {.x = slice(rows, 0, at, std::min(kPageTokens, n - at)),
                                   .coded = C,
                                   .rows = data.back().data()});
    }
    for (const std::vector<char>& p : data) page.push_back(p.data());
    keys = {page.data(), &first_page, bytes, DType::kI8, C};
  }
};

// Rows first .. first + count - 1 of a sequence.
std::vector<float> attend(const Kernels& kernels, TestExec& t, const Shape& d, const KeyPages& keys,
                          int first, int count, int64_t topk) {
  const TestRows rows({count}, {first});
  const Tensor all = t.random({first + count, d.H, d.C + d.R}, "query");
  const View q = slice(all, 0, first, count);
  const Tensor z = t.make({count, d.H, d.C}), lse = t.make({count, d.H});
  const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
  kernels.attention(t.exec, {.q_lat = slice(q, 2, 0, d.C),
                             .q_pe = slice(q, 2, d.C, d.R),
                             .rows = rows.ref(),
                             .keys = keys,
                             .sel = sel,
                             .scale = 0.1,
                             .z = z,
                             .lse = lse});
  std::vector<float> out(z.as<float>(), z.as<float>() + z.view.numel());
  out.insert(out.end(), lse.as<float>(), lse.as<float>() + lse.view.numel());
  return out;
}

std::vector<float> z_of(const std::vector<float>& out, const Shape& d, int row, int rows) {
  CHECK(std::ssize(out) == rows * d.H * (d.C + 1));
  return {out.begin() + row * d.H * d.C, out.begin() + (row + 1) * d.H * d.C};
}

double worst_error(const std::vector<float>& got, const std::vector<float>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
  return worst;
}

}  // namespace

TEST_CASE("coded latents: the vector kernels write the reference's rows on every instruction set") {
  TestExec t;
  for (const auto& [C, R] : {std::pair{1, 1}, {17, 3}, {128, 64}, {130, 0}, {512, 64}}) {
    const Tensor rows = t.random({5, C + R}, "rows");
    float* x = rows.as<float>();
    std::fill_n(x, C, 0.0f);                                     // a row of zeros
    x[C + R] = std::numeric_limits<float>::infinity();           // and one that is not finite
    for (int64_t i = 0; i < C; ++i) x[2 * (C + R) + i] *= 1e8f;  // and a large one
    const auto bytes = static_cast<size_t>(5 * coded_row_bytes(C, R));
    std::vector<char> want(bytes), got(bytes);
    cpu_ref().latent_code(t.exec, {.x = rows, .coded = C, .rows = want.data()});
    testing::for_each_target([&] {
      cpu_simd().latent_code(t.exec, {.x = rows, .coded = C, .rows = got.data()});
      CHECK(got == want);
    });
  }
}

TEST_CASE("coded latents: every way to multiply them gives the same bits, near the plain sums") {
  TestExec t;
  for (const auto& [C, R] : {std::pair{16, 3}, {128, 64}, {200, 16}, {512, 64}})
    for (const int64_t n : {1, 33, 64, 100, 256})
      for (const int64_t rows : {1, 4, 8}) {
        CAPTURE(C);
        CAPTURE(n);
        CAPTURE(rows);
        const int64_t width = C + R, ld = rows * simd::kBlock;
        const Tensor latents = t.random({n, width}, "rows");
        const LatentPages pages(cpu_ref(), t, latents, C);
        std::vector<const void*> key;
        for (int64_t i = 0; i < n; ++i)
          key.push_back(pages.data[static_cast<size_t>(i / kPageTokens)].data() +
                        i % kPageTokens * pages.keys.stride);
        const Tensor q = t.random({rows, width}, "query");
        const Tensor p = t.random({simd::kChunkBlocks, rows, simd::kBlock}, "probabilities");
        for (int64_t i = 0; i < p.view.numel(); ++i)  // those behind the last key
          if (i / ld * simd::kBlock + i % simd::kBlock >= n) p.as<float>()[i] = 0;
        std::vector<float> want;
        testing::for_each_target([&] {
          for (const simd::ChunkProducts* way : simd::attention_codes_ways())
            for (const bool in_place : {false, true}) {
              const auto room = [&](int64_t bytes) { return t.make({bytes}, DType::kU8); };
              const auto at = [](const Tensor& x) { return static_cast<std::byte*>(x.view.data); };
              const Tensor group = room(way->group_bytes(C, R));
              const Tensor block = room(way->block_bytes(C, R)), whole = room(way->whole_bytes(C));
              simd::KeyFeed feed;  // empty
              simd::KeyChunk keys{.key = key.data(),
                                  .size = n,
                                  .C = C,
                                  .R = R,
                                  .in_place = in_place,
                                  .feed = &feed,
                                  .block = at(block),
                                  .whole = at(whole)};
              const int64_t cols = way->z_cols(C);
              std::vector<float> out, s(static_cast<size_t>(ld));
              std::vector<float> z(static_cast<size_t>(rows * cols));
              way->load_queries(q.as<float>(), width, rows, C, R, at(group));
              for (int64_t k = 0; k < n; k += simd::kBlock) {
                way->load_block(&keys, k / simd::kBlock);
                way->score(at(group), keys, k / simd::kBlock, rows, s.data());
                for (int64_t r = 0; r < rows; ++r)
                  out.insert(out.end(), s.begin() + r * simd::kBlock,
                             s.begin() + r * simd::kBlock + std::min(n - k, simd::kBlock));
              }
              way->weigh(p.as<float>(), ld, rows, keys, z.data(), cols);
              for (int64_t r = 0; r < rows; ++r) {
                way->in_order(z.data() + r * cols, cols);
                out.insert(out.end(), z.begin() + r * cols, z.begin() + r * cols + C);
              }
              if (want.empty()) want = out;
              CHECK(out == want);
            }
        });
        // `want` holds the blocks' scores, then the sums.
        double score_error = 0, sum_error = 0, worst = 0;  // mean squares; in roots of terms
        size_t next = 0;
        for (int64_t from = 0; from < n; from += simd::kBlock)
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t k = from; k < std::min(n, from + simd::kBlock); ++k) {
              double score = 0;
              for (int64_t i = 0; i < width; ++i)
                score += double{q.as<float>()[r * width + i]} * latents.as<float>()[k * width + i];
              const double error = want[next++] - score;
              score_error += error * error / static_cast<double>(n * rows);
              worst = std::max(worst, std::abs(error) / std::sqrt(static_cast<double>(width)));
            }
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t i = 0; i < C; ++i) {
            double sum = 0;
            for (int64_t k = 0; k < n; ++k)
              sum +=
                  double{
                      p.as<float>()[k / simd::kBlock * ld + r * simd::kBlock + k % simd::kBlock]} *
                  latents.as<float>()[k * width + i];
            const double error = want[next++] - sum;
            sum_error += error * error / static_cast<double>(C * rows);
            worst = std::max(worst, std::abs(error) / std::sqrt(static_cast<double>(n)));
          }
        // Roundings of codes add up like random steps.
        CHECK(score_error < 6e-5 * static_cast<double>(width));
        CHECK(sum_error < 1e-4 * static_cast<double>(n));
        CHECK(worst < 0.035);
      }
}

TEST_CASE("coded latents: attention is near the reference, whatever the tiles, chunks and sets") {
  TestExec one, two(2);
  const int n = 331;
  for (const Shape& d : {Shape{1, 16, 16}, {3, 130, 33}, {4, 128, 64}, {8, 256, 64}, {11, 96, 32}})
    for (const int64_t topk : {0, 70, 300}) {
      CAPTURE(d.H);
      CAPTURE(topk);
      const LatentPages pages(cpu_simd(), one, one.random({n, d.C + d.R}, "kv"), d.C);
      const auto whole = attend(cpu_simd(), one, d, pages.keys, 0, n, topk);
      CHECK(worst_error(whole, attend(cpu_ref(), one, d, pages.keys, 0, n, topk)) < 5e-4);
      testing::for_each_target(
          [&] { CHECK(attend(cpu_simd(), two, d, pages.keys, 0, n, topk) == whole); });
      for (const int at : {0, 15, 64, 257, n - 1})
        CHECK(z_of(attend(cpu_simd(), two, d, pages.keys, at, 1, topk), d, 0, 1) ==
              z_of(whole, d, at, n));
      const auto tail = attend(cpu_simd(), two, d, pages.keys, 200, n - 200, topk);
      CHECK(z_of(tail, d, 50, n - 200) == z_of(whole, d, 250, n));
    }
}

TEST_CASE("coded latents: all keys selected give the bits of dense attention, NaN stays NaN") {
  TestExec t;
  const Shape d{2, 128, 16};
  for (const int n : {1, 64, 130, 600}) {
    const Tensor rows = t.random({n, d.C + d.R}, "kv");
    const LatentPages pages(cpu_simd(), t, rows, d.C);
    CHECK(attend(cpu_simd(), t, d, pages.keys, 0, n, n) ==
          attend(cpu_simd(), t, d, pages.keys, 0, n, 0));
  }
  const Tensor rows = t.random({3, d.C + d.R}, "kv");
  rows.as<float>()[d.C + d.R] = std::numeric_limits<float>::quiet_NaN();
  const LatentPages pages(cpu_simd(), t, rows, d.C);
  const auto out = attend(cpu_simd(), t, d, pages.keys, 0, 3, 0);
  CHECK(std::isfinite(out[0]));
  CHECK(std::isnan(z_of(out, d, 1, 3)[5]));
}

}  // namespace fathom
