// Index keys in codes: every way of computing gives one result, and the selector keeps its order.
#include "fathom/kernels/cpu/simd/index_codes.h"

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

struct Problem {
  Tensor q, w, k;
  Problem(TestExec& t, int64_t T, int64_t S, int64_t J, int64_t I)
      : q(t.random({T, J, I}, "q")), w(t.random({T, J}, "w")), k(t.random({S, I}, "k")) {}
};

Tensor scores_of(const Kernels& kernels, TestExec& t, const Problem& x, const TestRows& rows,
                 const CodedPages& pages) {
  const int64_t S = x.k.view.dim[0];
  Tensor out = t.make({rows.rows(), S});
  kernels.index_scores(
      t.exec,
      {.q = x.q, .w = x.w, .rows = rows.ref(), .keys = pages.ref(x.k.view.dim[1]), .scores = out});
  return out;
}

// All tokens see the first page, the last one alone sees the second.
class TwoPages final : public simd::PageWalk {
 public:
  TwoPages(const CodedPages& pages, int64_t tokens, int64_t num_keys)
      : PageWalk(num_keys), pages_(pages), tokens_(tokens) {}
  Page next() override {
    const int64_t n = given_++;
    if (n == 2) return {};
    return {static_cast<const uint8_t*>(pages_.page[static_cast<size_t>(n)]), n * kPageTokens,
            n == 0 ? 0 : tokens_ - 1};
  }
  void take(const Page& page, const float* of_page) override {
    CHECK(page.pos == (given_ - 2) * kPageTokens);  // one page ahead
    scores.insert(scores.end(), of_page, of_page + (tokens_ - page.first) * kPageTokens);
  }
  std::vector<float> scores;

 private:
  const CodedPages& pages_;
  int64_t tokens_, given_ = 0;
};

}  // namespace

TEST_CASE("coded index keys have the reference's bytes on every instruction set, in any pieces") {
  TestExec t;
  for (const int64_t I : {1, 3, 8, 16, 24, 32, 64, 128, 256}) {
    CAPTURE(I);
    Tensor k = t.random({130, I}, "k");
    for (int64_t i = 0; i < I; ++i) {
      k.as<float>()[5 * I + i] = 0;
      k.as<float>()[7 * I + i] *= 1e-35f;
    }
    k.as<float>()[9 * I] = std::nanf("");
    k.as<float>()[11 * I] = std::numeric_limits<float>::infinity();
    const CodedPages want(cpu_ref(), t, k);
    testing::for_each_target([&] {
      for (const int64_t piece : {64, 7, 1}) {
        const CodedPages got(cpu_simd(), t, k, piece);
        for (size_t p = 0; p < want.pages.size(); ++p)
          CHECK(same_bits(got.pages[p], want.pages[p]));
      }
    });
  }
}

TEST_CASE("scores of coded keys equal the reference, and stay close to those of the keys") {
  TestExec t;
  struct Sizes {
    int64_t J, I;
  };
  for (const Sizes& d : {Sizes{1, 1}, {3, 15}, {4, 32}, {8, 128}, {16, 64}, {17, 128}, {64, 128}}) {
    CAPTURE(d.J);
    CAPTURE(d.I);
    const Problem x(t, 131, 131, d.J, d.I);
    const TestRows rows({131});
    const CodedPages pages(cpu_simd(), t, x.k);
    const Tensor want = scores_of(cpu_ref(), t, x, rows, pages);
    testing::for_each_target(
        [&] { CHECK(relative_error(scores_of(cpu_simd(), t, x, rows, pages), want) < 1e-6); });
    const std::vector<std::vector<float>> plain = {
        {x.k.as<float>(), x.k.as<float>() + x.k.view.numel()}};
    const TestPages full(plain, d.I, d.I, DType::kF32);
    Tensor exact = t.make({131, 131});
    cpu_simd().index_scores(
        t.exec, {.q = x.q, .w = x.w, .rows = rows.ref(), .keys = full.ref(), .scores = exact});
    CHECK(relative_error(want, exact) < 0.02);
  }
}

TEST_CASE("every way of computing scores of codes gives the same bits") {
  for (const int64_t I : {20, 64, 128})
    for (const int64_t J : {1, 5, 8, 16, 40}) {
      CAPTURE(I);
      CAPTURE(J);
      constexpr int64_t kTokens = 5;
      TestExec t;
      const Problem x(t, kTokens, 2 * kPageTokens, J, I);
      const CodedPages pages(cpu_simd(), t, x.k);
      const auto scores = [&](const simd::IndexCodes& codes, int64_t tokens, int64_t num_keys) {
        std::vector<std::byte> q(static_cast<size_t>((tokens * J + 16) * simd::query_bytes(I)));
        std::vector<int32_t> shift(static_cast<size_t>(tokens * J));
        std::vector<float> weight(shift.size()), row(static_cast<size_t>(I) + 15);
        std::vector<float> page(static_cast<size_t>(tokens) * kPageTokens, 0.0f);
        const simd::CodedQueries coded{q.data(), shift.data(), weight.data(), J, I};
        for (int64_t r = 0; r < tokens * J; ++r) {
          std::copy_n(x.q.as<float>() + r * I, I, row.data());
          codes.code_query(row.data(), x.w.as<float>()[r], r, coded);
        }
        TwoPages walk(pages, tokens, num_keys);
        codes.score(coded, tokens, &walk, page.data());
        return walk.scores;
      };
      for (const int64_t tokens : {1, 2, 5}) {
        const std::vector<float> want = scores(*simd::index_codes_tables().back(), tokens, 1);
        REQUIRE(want.size() == static_cast<size_t>(tokens + 1) * kPageTokens);
        testing::for_each_target([&] {
          for (const simd::IndexCodes* codes : simd::index_codes_tables())
            for (const int64_t num_keys : {1, 1 << 20})
              CHECK(scores(*codes, tokens, num_keys) == want);
        });
      }
    }
}

TEST_CASE("the selector over codes picks by its scores, alone and in a batch, on 1 and 2 threads") {
  TestExec one, two(2);
  constexpr int64_t kKeys = 3000;
  const Problem x(one, 70, kKeys, 8, 64);
  const CodedPages pages(cpu_simd(), one, x.k);
  const TestRows batch({70}, {kKeys - 70});
  const Tensor scores = scores_of(cpu_simd(), one, x, batch, pages);
  for (const int64_t topk : {1, 100, 2000}) {
    Tensor all = one.make({70, topk}, DType::kI32), split = one.make({1, topk}, DType::kI32);
    cpu_simd().index_select(
        one.exec, {.q = x.q, .w = x.w, .rows = batch.ref(), .keys = pages.ref(64), .sel = all});
    const TestRows last({1}, {kKeys - 1});
    cpu_simd().index_select(two.exec, {.q = slice(x.q, 0, 69, 1),
                                       .w = slice(x.w, 0, 69, 1),
                                       .rows = last.ref(),
                                       .keys = pages.ref(64),
                                       .sel = split});
    CHECK(
        std::equal(split.as<int32_t>(), split.as<int32_t>() + topk, all.as<int32_t>() + 69 * topk));
    for (const int64_t t : {0, 33, 69}) {
      const float* row = scores.as<float>() + t * kKeys;
      const std::vector<int32_t> want = ref::best_scored({row, row + kKeys - 69 + t}, topk);
      CHECK(std::equal(want.begin(), want.end(), all.as<int32_t>() + t * topk));
    }
  }
}

}  // namespace fathom
