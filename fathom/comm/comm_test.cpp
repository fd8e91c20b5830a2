#include "fathom/comm/comm.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/comm/wire_comm.h"

namespace fathom {
namespace {

// Ranks as threads of one process.
struct Mail {
  std::mutex mutex;
  std::map<std::pair<int, int>, std::deque<std::string>> box;  // (from, to)
};

class ThreadWire final : public Wire {
 public:
  ThreadWire(Mail* mail, int rank, int size) : mail_(*mail), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Transfer send(int to, const void* data, size_t n) override {
    const std::lock_guard lock(mail_.mutex);
    mail_.box[{rank_, to}].emplace_back(static_cast<const char*>(data), n);
    return 0;
  }
  Transfer receive(int from, void* data, size_t n) override {
    open_.push_back({from, data, n});
    return static_cast<Transfer>(open_.size());
  }
  bool done(Transfer* t) override {
    if (*t == 0) return true;
    const std::lock_guard lock(mail_.mutex);
    for (size_t i = 0; i < open_.size(); ++i) {  // in order, so that messages keep theirs
      Waiting& w = open_[i];
      auto& box = mail_.box[{w.from, rank_}];
      if (w.data && !box.empty()) {
        CHECK(box.front().size() == w.size);
        std::memcpy(w.data, box.front().data(), w.size);
        box.pop_front();
        w.data = nullptr;
      }
    }
    return !open_[static_cast<size_t>(*t - 1)].data;
  }
  void abandon(int) noexcept override {}

 private:
  struct Waiting {
    int from;
    void* data;
    size_t size;
  };
  Mail& mail_;
  int rank_, size_;
  std::deque<Waiting> open_;
};

// body(comm) on every rank; what each threw, or "".
template <class F>
std::vector<std::string> on_ranks(int size, F body, double timeout_s = 20) {
  Mail mail;
  std::vector<std::string> said(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      const auto comm = make_wire_comm(std::make_unique<ThreadWire>(&mail, r, size), timeout_s);
      try {
        body(*comm);
      } catch (const Error& e) {
        said[static_cast<size_t>(r)] = fmt::format("{}: {}", code_name(e.code()), e.message());
      }
    });
  for (std::thread& t : threads) t.join();
  return said;
}

const std::string kNothing;

std::vector<float> numbers(int i, size_t n) {
  Rng rng(3, "numbers", static_cast<uint64_t>(i));
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(rng.uniform() * 2 - 1) * (i % 2 ? 1e-4F : 1e3F);
  if (n > 0) x[0] = -0.0F;
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
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
