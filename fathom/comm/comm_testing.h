// Test support: ranks as threads of one process.
#pragma once

#include <fmt/core.h>

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/comm/wire_comm.h"

namespace fathom::testing {

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
        FM_CHECK(box.front().size() == w.size, "{} bytes for {}", box.front().size(), w.size);
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

}  // namespace fathom::testing
