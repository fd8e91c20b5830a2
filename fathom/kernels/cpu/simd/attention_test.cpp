#include <iterator>
#include <numeric>
#include <tuple>

#include "fathom/kernels/cpu/simd/attention_pair.h"
#include "fathom/kernels/cpu/simd/attention_testing.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"

namespace fathom {
namespace {

struct Latent {
  int64_t H, C, R;
};

struct Out {
  Tensor z, lse;
};

// The rows of `rows` against keys in pages; queries are those of the row's position, whatever the
// batch.
Out run(const Kernels& kernels, TestExec& t, const Latent& d, const TestRows& rows,
        const TestPages& pages, const Tensor& sel) {
  const int64_t T = rows.rows();
  Tensor q = t.make({T, d.H, d.C + d.R});
  for (size_t b = 0; b < rows.first_pos.size(); ++b)
    for (int32_t r = rows.first_row[b]; r < rows.first_row[b + 1]; ++r) {
      const int32_t pos = rows.first_pos[b] + r - rows.first_row[b];
      Rng rng(3, "query", static_cast<uint64_t>(pos));
      for (int64_t i = 0; i < d.H * (d.C + d.R); ++i)
        q.as<float>()[r * d.H * (d.C + d.R) + i] = static_cast<float>(rng.normal());
    }
  Out out{t.make({T, d.H, d.C}), t.make({T, d.H})};
  kernels.attention(t.exec, {.q_lat = slice(q, 2, 0, d.C),
                             .q_pe = slice(q, 2, d.C, d.R),
                             .rows = rows.ref(),
                             .keys = pages.ref(),
                             .sel = sel,
                             .scale = 0.3,
                             .z = out.z,
                             .lse = out.lse});
  return out;
}

// One sequence of n tokens, cut into steps of the given sizes (the last one repeats).
Out run_in_steps(TestExec& t, const Latent& d, int n, const std::vector<int>& steps,
                 const TestPages& pages, int64_t topk) {
  Out all{t.make({n, d.H, d.C}), t.make({n, d.H})};
  int at = 0;
  for (size_t i = 0; at < n; ++i) {
    const int size = std::min(steps[std::min(i, steps.size() - 1)], n - at);
    const TestRows rows({size}, {at});
    const Out part =
        run(cpu_simd(), t, d, rows, pages, topk ? random_selection(t, rows, topk) : Tensor{});
    std::copy_n(part.z.as<float>(), size * d.H * d.C, all.z.as<float>() + at * d.H * d.C);
    std::copy_n(part.lse.as<float>(), size * d.H, all.lse.as<float>() + at * d.H);
    at += size;
  }
  return all;
}

}  // namespace

TEST_CASE("latent attention equals the reference over odd sizes, pages and selections") {
  TestExec t;
  const Latent shapes[] = {{1, 1, 1},  {2, 15, 17}, {3, 16, 16},
                           {4, 33, 1}, {5, 64, 16}, {16, 17, 15}};
  const std::vector<int> sizes[] = {{1}, {63, 64}, {65, 1, 129}, {128, 33}};
  for (const Latent& d : shapes)
    for (const std::vector<int>& n : sizes)
      for (const int64_t topk : {0, 1, 15, 64, 70}) {
        const TestRows rows(n);
        const DType type = topk == 15 ? DType::kBF16 : DType::kF32;
        const TestPages pages(random_keys(n, d.C + d.R, "kv"), d.C + d.R, d.C + d.R + 3, type);
        const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
        const Out want = run(cpu_ref(), t, d, rows, pages, sel);
        const Out got = run(cpu_simd(), t, d, rows, pages, sel);
        CAPTURE(d.C);
        CAPTURE(topk);
        CHECK(relative_error(got.z, want.z) < 2e-5);
        CHECK(relative_error(got.lse, want.lse) < 2e-6);
      }
}

TEST_CASE(
    "latent attention: prefill in one piece, in any chunks and token by token give equal bits") {
  TestExec one, two(2);
  const Latent d{4, 33, 16};
  const int n = 131;
  for (const DType type : {DType::kF32, DType::kBF16})
    for (const int64_t topk : {0, 40, 70}) {
      const TestPages pages(random_keys({n}, 49, "kv"), 49, 49, type);
      const Out whole = run_in_steps(one, d, n, {n}, pages, topk);
      for (const std::vector<int>& steps :
           {std::vector<int>{1}, {63, 1}, {64}, {65}, {7}, {128, 2, 1}}) {
        const Out cut = run_in_steps(two, d, n, steps, pages, topk);
        CHECK(same_bits(cut.z, whole.z));
        CHECK(same_bits(cut.lse, whole.lse));
      }
    }
}

TEST_CASE("latent attention: a long row does not depend on threads, tiles or the page layout") {
  TestExec one, two(2), three(3);
  const int n = 3100;  // several chunks
  // States of the second shape are joined by all threads.
  for (const Latent& d : {Latent{3, 32, 16}, {11, 512, 32}}) {
    CAPTURE(d.H);
    const int64_t width = d.C + d.R;
    const auto keys = random_keys({n}, width, "kv");
    const TestPages pages(keys, width, width, DType::kF32),
        wide(keys, width, width + 13, DType::kF32);
    for (const int64_t topk : {0, 1500}) {
      const TestRows last({1}, {n - 1}), tail({40}, {n - 40});
      const auto sel = [&](TestExec& t, const TestRows& rows) {
        return topk ? random_selection(t, rows, topk) : Tensor{};
      };
      const Out alone = run(cpu_simd(), one, d, last, pages, sel(one, last));
      for (TestExec* t : {&two, &three}) {
        const Out split = run(cpu_simd(), *t, d, last, wide, sel(*t, last));
        CHECK(same_bits(split.z, alone.z));
        CHECK(same_bits(split.lse, alone.lse));
      }
      const Out batch = run(cpu_simd(), two, d, tail, pages, sel(two, tail));
      CHECK(same_bits(slice(batch.z, 0, 39, 1), alone.z));
      CHECK(relative_error(alone.z, run(cpu_ref(), one, d, last, pages, sel(one, last)).z) < 2e-5);
    }
  }
}

TEST_CASE(
    "latent attention: a row whose selection is all its keys gives the bits of dense attention") {
  TestExec t;
  const Latent d{2, 16, 15};
  for (const int n : {1, 64, 130, 1100}) {
    const TestRows rows({n});
    const TestPages pages(random_keys({n}, 31, "kv"), 31, 31, DType::kF32);
    const Out dense = run(cpu_simd(), t, d, rows, pages, {});
    const Out selected = run(cpu_simd(), t, d, rows, pages, random_selection(t, rows, n));
    CHECK(same_bits(dense.z, selected.z));
    CHECK(same_bits(dense.lse, selected.lse));
  }
}

TEST_CASE("latent attention: a packed batch gives each sequence the bits it has alone") {
  TestExec t;
  const Latent d{4, 16, 16};
  const std::vector<int> n = {70, 1, 129};
  const auto keys = random_keys(n, 32, "kv");
  const TestPages pages(keys, 32, 32, DType::kF32);
  const TestRows rows(n);
  for (const int64_t topk : {0, 20}) {
    const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
    const Out all = run(cpu_simd(), t, d, rows, pages, sel);
    for (size_t b = 0; b < n.size(); ++b) {
      const TestRows own({n[b]});
      const Tensor part =
          topk ? Tensor(slice(sel, 0, rows.first_row[b], n[b]), sel.owner) : Tensor{};
      const Out alone = run(cpu_simd(), t, d, own, TestPages({keys[b]}, 32, 32, DType::kF32), part);
      CHECK(same_bits(alone.z, slice(all.z, 0, rows.first_row[b], n[b])));
    }
  }
}

TEST_CASE("latent attention: a token that reads its keys in place has the bits of packed blocks") {
  TestExec one, two(2);
  const int n = 330;
  for (const int64_t H : {1, 2, 3, 4, 7, 8, 11, 16})
    for (const DType type : {DType::kF32, DType::kBF16}) {
      CAPTURE(H);
      CAPTURE(dtype_name(type));
      const int64_t R = H % 2 == 0 ? 32 : 16;  // half of them are too odd for that way
      const Latent d{H, 96, R};
      const TestPages pages(random_keys({n}, 96 + R, "kv"), 96 + R, 96 + R, type);
      const TestRows whole({n});
      testing::for_each_target([&] {
        const Out dense = run(cpu_simd(), one, d, whole, pages, {});  // tiles of several tokens
        for (const int at : {0, 15, 31, 64, 100, 257, 329}) {
          const TestRows last({1}, {at});
          const Out alone = run(cpu_simd(), two, d, last, pages, {});
          const Out gathered = run(cpu_simd(), one, d, last, pages, random_selection(one, last, n));
          const View row = slice(dense.z, 0, at, 1);
          CHECK(same_bits(alone.z, row));
          CHECK(same_bits(gathered.z, row));
        }
      });
      const Tensor sel = random_selection(one, whole, 70);
      const Out want = run(cpu_ref(), one, d, whole, pages, sel);
      CHECK(relative_error(run(cpu_simd(), one, d, whole, pages, sel).z, want.z) < 2e-5);
    }
}

TEST_CASE(
    "latent attention: neighbours that select the same keys have the bits of each one alone") {
  TestExec one, two(2);
  const int n = 900, rows = 17;
  for (const auto& [d, topk] : {std::pair{Latent{8, 96, 32}, 700}, std::pair{Latent{3, 64, 32}, 70},
                                std::pair{Latent{1, 32, 32}, 300}})
    for (const DType type : {DType::kF32, DType::kBF16})
      for (const double share : {0.7, 0.95, 1.0}) {
        CAPTURE(d.H);
        CAPTURE(std::string(dtype_name(type)));
        CAPTURE(share);
        const int64_t width = d.C + d.R;
        const TestPages pages(random_keys({n}, width, "kv"), width, width, type);
        // The row at a position selects the topk least numbers, which are those of the key alone
        // for about `share` of the keys; some rows select fewer.
        const auto selection = [&](const TestRows& of) {
          Tensor sel = two.make({of.rows(), topk}, DType::kI32);
          for (int32_t r = 0; r < of.rows(); ++r) {
            const int32_t pos = of.first_pos[0] + r;
            std::vector<std::pair<double, int32_t>> order;
            for (int32_t s = 0; s <= pos; ++s) {
              Rng common(5, "key", static_cast<uint64_t>(s));
              Rng own(6, "key", static_cast<uint64_t>(pos * n + s));
              order.push_back({(common.uniform() < share ? common : own).uniform(), s});
            }
            std::sort(order.begin(), order.end());
            const int64_t size = std::min<int64_t>(topk - (pos % 5 == 0 ? 13 : 0), pos + 1);
            int32_t* row = sel.as<int32_t>() + r * topk;
            std::fill_n(row, topk, -1);
            for (int64_t i = 0; i < size; ++i) row[i] = order[static_cast<size_t>(i)].second;
            std::sort(row, row + size);
          }
          return sel;
        };
        for (const int first : {n - rows, static_cast<int>(topk) - rows / 2}) {
          const TestRows whole({rows}, {first});
          const Tensor sel = selection(whole);
          std::vector<Out> alone;
          for (int r = 0; r < rows; ++r) {
            const TestRows row({1}, {first + r});
            alone.push_back(run(cpu_simd(), one, d, row, pages, selection(row)));
          }
          testing::for_each_target([&] {
            for (TestExec* t : {&one, &two}) {
              const Out together = run(cpu_simd(), *t, d, whole, pages, sel);
              for (int r = 0; r < rows; ++r) {
                CAPTURE(r);
                CHECK(same_bits(slice(together.z, 0, r, 1), alone[static_cast<size_t>(r)].z));
                CHECK(same_bits(slice(together.lse, 0, r, 1), alone[static_cast<size_t>(r)].lse));
              }
            }
          });
        }
      }
}

TEST_CASE("pairs of neighbours: shared keys are found, keys split and scores laid out as by hand") {
  for (const auto& [num_a, num_b, range] :
       {std::tuple{1, 1, 1}, {16, 16, 20}, {200, 130, 210}, {65, 300, 400}, {300, 17, 301}})
    testing::for_each_target([&] {
      const simd::AttentionPair* pair = simd::attention_pair();
      if (!pair) return;  // of this instruction set
      const auto choose = [&](int n, uint64_t index) {
        std::vector<int32_t> all(static_cast<size_t>(range)), out;
        std::iota(all.begin(), all.end(), 0);
        Rng rng(21, "choice", index);
        for (int i = 0; i < n; ++i) {
          const auto at = static_cast<std::ptrdiff_t>(rng.below(all.size()));
          out.push_back(all[static_cast<size_t>(at)]);
          all.erase(all.begin() + at);
        }
        std::sort(out.begin(), out.end());
        return out;
      };
      const std::vector<int32_t> pos[] = {choose(num_a, 1), choose(num_b, 2)};
      std::vector<int32_t> common;
      std::ranges::set_intersection(pos[0], pos[1], std::back_inserter(common));
      const simd::Selected sel[] = {{pos[0].data(), std::ssize(pos[0])},
                                    {pos[1].data(), std::ssize(pos[1])}};
      uint64_t a_bits[8], b_bits[8];
      uint64_t* bits[] = {a_bits, b_bits};
      CHECK(pair->find_shared(sel, std::ssize(common) + 1, {a_bits, b_bits}) <= std::ssize(common));
      CHECK(pair->find_shared(sel, 0, {a_bits, b_bits}) == std::ssize(common));
      for (const int t : {0, 1}) {
        const size_t n = pos[t].size();
        std::vector<const void*> key(n + 64), both(n + 64), own(n + 64);
        std::vector<float> both_score(n + 128), own_score(n + 128);
        for (size_t i = 0; i < n; ++i) key[i] = pos[t].data() + i;
        pair->split(key.data(), static_cast<int64_t>(n), bits[t], both.data(), own.data());
        size_t num_both = 0, num_own = 0;
        for (size_t i = 0; i < n; ++i) {
          const bool shared = std::ranges::binary_search(common, pos[t][i]);
          CHECK((bits[t][i / 64] >> i % 64 & 1) == shared);
          CHECK((shared ? both[num_both] : own[num_own]) == key[i]);
          (shared ? both_score[num_both++] : own_score[num_own++]) = static_cast<float>(i);
        }
        float s[64];
        pair->lay_out(both_score.data(), own_score.data(), 0, 1, bits[t][0], s);
        for (size_t i = 0; i < std::min<size_t>(n, 64); ++i) CHECK(s[i] == static_cast<float>(i));
      }
    });
}

TEST_CASE("latent attention gives equal bits on every instruction set with fused multiply-add") {
  TestExec t;
  const Latent d{3, 40, 16};
  const TestRows rows({150});
  const TestPages pages(random_keys({150}, 56, "kv"), 56, 56, DType::kF32);
  for (const int64_t topk : {0, 33}) {
    const Tensor sel = topk ? random_selection(t, rows, topk) : Tensor{};
    const Out want = run(cpu_simd(), t, d, rows, pages, sel);
    testing::for_each_target([&] {
      const Out got = run(cpu_simd(), t, d, rows, pages, sel);
      CHECK(same_bits(got.z, want.z));
      CHECK(same_bits(got.lse, want.lse));
    });
  }
}

}  // namespace fathom
