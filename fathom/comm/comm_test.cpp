#include "fathom/comm/comm.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstring>

#include "fathom/base/rng.h"
#include "fathom/comm/comm_testing.h"

namespace fathom {
namespace {

using namespace testing;

const std::string kNothing;

std::vector<float> numbers(int i, size_t n) {
  Rng rng(3, "numbers", static_cast<uint64_t>(i));
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(rng.uniform() * 2 - 1) * (i % 2 ? 1e-4F : 1e3F);
  if (n > 0) x[0] = -0.0F;
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The sum of `parts` summands, `comm.size()` at a time.
std::vector<float> ordered(Comm& comm, int parts, size_t n) {
  std::vector<float> total(n, 7);
  for (int first = 0; first < parts; first += comm.size()) {
    const int count = std::min(comm.size(), parts - first);
    const std::vector<float> own =
        comm.rank() < count ? numbers(first + comm.rank(), n) : std::vector<float>();
    comm.add_in_order(own, count, first > 0, total);
  }
  return total;
}

TEST_CASE("ordered sums have the same bits for any number of ranks, and keep the order") {
  const auto alone = make_single_comm();
  for (const size_t n : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
    const std::vector<float> want = ordered(*alone, 7, n);
    std::vector<float> reversed(n);
    for (int i = 6; i >= 0; --i)
      for (size_t k = 0; k < n; ++k) reversed[k] += numbers(i, n)[k];
    if (n == 1000) CHECK(!same_bits(want, reversed));  // so the order can be seen
    for (const int ranks : {1, 2, 3, 7, 8})
      for (const std::string& said : on_ranks(ranks, [&](Comm& comm) {
             if (!same_bits(ordered(comm, 7, n), want)) throw Error(Code::kInternal, "other bits");
           }))
        CHECK(said == kNothing);
  }
}

TEST_CASE("sums longer than one chunk") {
  const size_t n = (size_t{4} << 20) + 3;
  const std::vector<float> want = ordered(*make_single_comm(), 2, n);
  for (const std::string& said : on_ranks(2, [&](Comm& comm) {
         if (!same_bits(ordered(comm, 2, n), want)) throw Error(Code::kInternal, "other bits");
       }))
    CHECK(said == kNothing);
}

TEST_CASE("broadcast, gather and barrier") {
  for (const int ranks : {1, 3})
    for (const std::string& said : on_ranks(ranks, [&](Comm& comm) {
           std::string text = comm.rank() == ranks - 1 ? "from the last" : "own";
           broadcast_text(comm, &text, ranks - 1);
           comm.barrier();
           const auto all = comm.gather(std::string(static_cast<size_t>(comm.rank()), 'x'));
           if (text != "from the last" || all.size() != static_cast<size_t>(ranks) || all[0] != "")
             throw Error(Code::kInternal, text);
           if (ranks == 3 && (all[1] != "x" || all[2] != "xx"))
             throw Error(Code::kInternal, all[1] + "," + all[2]);
         }))
      CHECK(said == kNothing);
}

TEST_CASE("ranks that want different things are told so, all of them") {
  auto said = on_ranks(2, [](Comm& comm) {
    std::vector<float> x(comm.is_first() ? 10 : 9);
    comm.add_in_order(x, 2, false, x);
  });
  CHECK(said[0].find("rank 0 expected an ordered sum of size 10 (4) as its collective 0, "
                     "rank 1 wants an ordered sum of size 9") != kNothing.npos);
  CHECK(said[1].find("rank 1 expected an ordered sum of size 9") != kNothing.npos);
  said = on_ranks(3, [](Comm& comm) {
    if (comm.rank() == 2)
      comm.gather("late");
    else
      comm.barrier();
  });
  for (const std::string& s : said) CHECK(s.find("a gathering") != kNothing.npos);
}

TEST_CASE("a rank that does not come is named after the time limit") {
  const auto said = on_ranks(
      3,
      [](Comm& comm) {
        if (comm.rank() != 1) comm.barrier();
      },
      0.05);
  CHECK(said[0].find("rank 0 of 3 waited 0 s for rank 1") != kNothing.npos);
  CHECK(said[1] == kNothing);
  CHECK(said[2].find("for rank 1") != kNothing.npos);
}

}  // namespace
}  // namespace fathom
