#include "fathom/comm/wire_comm.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using Clock = std::chrono::steady_clock;

// Numbers that add_in_order handles at a time: bounds its memory.
constexpr size_t kChunk = size_t{4} << 20;

enum class Call : int64_t { kBarrier, kBroadcast, kGather, kAddInOrder };
constexpr const char* kCallNames[] = {"a barrier", "a broadcast", "a gathering", "an ordered sum"};

// What a rank is about to do. All must be equal, but for the sizes of a gathering.
struct Intent {
  int64_t number = 0;  // of the collective
  Call call = Call::kBarrier;
  int64_t size = 0, detail = 0;

  bool matches(const Intent& other) const {
    return number == other.number && call == other.call && detail == other.detail &&
           (call == Call::kGather || size == other.size);
  }
  std::string text() const {
    return fmt::format("{} of size {} ({}) as its collective {}",
                       kCallNames[static_cast<size_t>(call)], size, detail, number);
  }
};

class WireComm final : public Comm {
 public:
  WireComm(std::unique_ptr<Wire> wire, double timeout_s)
      : wire_(std::move(wire)), timeout_s_(timeout_s) {}

  int rank() const override { return wire_->rank(); }
  int size() const override { return wire_->size(); }
  void abandon(int exit_code) noexcept override { wire_->abandon(exit_code); }

  void barrier() override { agree(Call::kBarrier, 0, 0); }

  void broadcast(void* data, size_t size_bytes, int root) override {
    agree(Call::kBroadcast, size_bytes, root);
    auto* at = static_cast<std::byte*>(data);
    for (size_t first = 0; first < size_bytes; first += Wire::kMaxBytes) {
      const size_t n = std::min(Wire::kMaxBytes, size_bytes - first);
      if (rank() == root)
        for (int peer = 0; peer < size(); ++peer) send(peer, at + first, n);
      else
        receive(root, at + first, n);
      wait();
    }
  }

  std::vector<std::string> gather(std::string_view own) override {
    const std::vector<Intent> all = agree(Call::kGather, own.size(), 0);
    std::vector<std::string> out(all.size());
    for (int peer = 0; peer < size(); ++peer) {
      std::string& to = out[static_cast<size_t>(peer)];
      to.resize(static_cast<size_t>(all[static_cast<size_t>(peer)].size));
      send(peer, own.data(), own.size());
      receive(peer, to.data(), to.size());
    }
    wait();
    out[static_cast<size_t>(rank())] = own;
    return out;
  }

  void add_in_order(std::span<const float> x, int count, bool add,
                    std::span<float> total) override {
    FM_CHECK(count >= 1 && count <= size(), "{} summands of {} ranks", count, size());
    FM_CHECK(x.size() == total.size() || rank() >= count, "{} numbers for {}", x.size(),
             total.size());
    agree(Call::kAddInOrder, total.size(), 2 * count + add);
    for (size_t first = 0; first < total.size(); first += kChunk) {
      const size_t n = std::min(kChunk, total.size() - first);
      add_chunk(rank() < count ? x.subspan(first, n) : x, count, add, total.subspan(first, n));
    }
  }

 private:
  struct Open {
    int peer;
    Wire::Transfer transfer;
  };

  // Each rank adds up its share of the numbers and sends the result to all.
  void add_chunk(std::span<const float> x, int count, bool add, std::span<float> total) {
    const auto share = [&](int r) {
      const auto i = static_cast<size_t>(r), n = static_cast<size_t>(size());
      const size_t begin = total.size() * i / n;
      return std::pair(begin, total.size() * (i + 1) / n - begin);
    };
    const auto [begin, n] = share(rank());
    inbox_.resize(n * static_cast<size_t>(count));
    for (int peer = 0; peer < size(); ++peer) {
      const auto [theirs, m] = share(peer);
      if (rank() < count) send(peer, x.data() + theirs, m * sizeof(float));
      if (peer < count)
        receive(peer, inbox_.data() + n * static_cast<size_t>(peer), n * sizeof(float));
    }
    wait();
    const std::span<float> sum = total.subspan(begin, n);
    for (int r = 0; r < count; ++r) {
      const float* from =
          r == rank() ? x.data() + begin : inbox_.data() + n * static_cast<size_t>(r);
      if (r == 0 && !add)
        std::copy_n(from, n, sum.data());
      else
        for (size_t i = 0; i < n; ++i) sum[i] += from[i];
    }
    for (int peer = 0; peer < size(); ++peer) {
      const auto [theirs, m] = share(peer);
      send(peer, sum.data(), sum.size_bytes());
      receive(peer, total.data() + theirs, m * sizeof(float));
    }
    wait();
  }

  // To and from others; nothing for oneself.
  void send(int peer, const void* data, size_t size_bytes) {
    if (peer != rank() && size_bytes > 0)
      open_.push_back({peer, wire_->send(peer, data, size_bytes)});
  }
  void receive(int peer, void* data, size_t size_bytes) {
    if (peer != rank() && size_bytes > 0)
      open_.push_back({peer, wire_->receive(peer, data, size_bytes)});
  }

  // Everybody's intents, after a comparison with one's own.
  std::vector<Intent> agree(Call call, size_t size_of_call, int64_t detail) {
    const Intent own{next_number_++, call, static_cast<int64_t>(size_of_call), detail};
    std::vector<Intent> all(static_cast<size_t>(size()), own);
    for (int peer = 0; peer < size(); ++peer) {
      send(peer, &own, sizeof own);
      receive(peer, &all[static_cast<size_t>(peer)], sizeof own);
    }
    wait();
    for (size_t r = 0; r < all.size(); ++r)
      if (!all[r].matches(own))
        throw Error(Code::kInvalidArgument,
                    fmt::format("rank {} expected {}, rank {} wants {}", rank(), own.text(), r,
                                all[r].text()),
                    "do all ranks run the same program with the same recipe and files?");
    return all;
  }

  // Until all open transfers are done. The processor is left to others after a moment: they may be
  // computing what this rank waits for.
  void wait() {
    constexpr auto kEager = std::chrono::milliseconds(2);
    const Clock::time_point begin = Clock::now();
    for (;;) {
      size_t left = 0;
      for (Open& o : open_)
        if (!wire_->done(&o.transfer)) open_[left++] = o;
      open_.resize(left);
      if (open_.empty()) return;
      const auto waited = Clock::now() - begin;
      if (timeout_s_ > 0 && std::chrono::duration<double>(waited).count() > timeout_s_) time_out();
      if (waited < kEager)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

  [[noreturn]] void time_out() const {
    std::vector<int> missing;
    for (const Open& o : open_) missing.push_back(o.peer);
    std::ranges::sort(missing);
    missing.erase(std::ranges::unique(missing).begin(), missing.end());
    std::string names;
    for (const int peer : missing) names += fmt::format("{}{}", names.empty() ? "" : ", ", peer);
    throw Error(
        Code::kTimeout,
        fmt::format("rank {} of {} waited {:.0f} s for rank {}", rank(), size(), timeout_s_, names),
        "is it alive? The last checkpoint is intact; --rank-timeout raises the limit");
  }

  std::unique_ptr<Wire> wire_;
  double timeout_s_;
  int64_t next_number_ = 0;
  std::vector<Open> open_;
  std::vector<float> inbox_;  // of add_chunk: [count][share]
};

}  // namespace

std::unique_ptr<Comm> make_wire_comm(std::unique_ptr<Wire> wire, double timeout_s) {
  return std::make_unique<WireComm>(std::move(wire), timeout_s);
}

}  // namespace fathom
