// A fork-join pool: regions are short and many (several per layer), so waiting threads spin for a
// moment and then sleep. Beside other busy processes nobody waits for a thread that has no core:
// work belongs to whoever claims it, and only claimed chunks are waited for.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace fathom {

// Non-owning reference to a callable void(begin, end, thread); valid for the call it is passed to.
class RangeFn {
 public:
  RangeFn() = default;
  template <class F>
  RangeFn(const F& f)  // NOLINT: implicit by design
      : object_(&f), call_([](const void* o, int64_t b, int64_t e, int t) {
          (*static_cast<const F*>(o))(b, e, t);
        }) {}
  void operator()(int64_t begin, int64_t end, int thread) const {
    call_(object_, begin, end, thread);
  }

 private:
  const void* object_ = nullptr;
  void (*call_)(const void*, int64_t, int64_t, int) = nullptr;
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // the caller counts as one of them; >= 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(begin, end, thread) over [0, n) cut into chunks of `grain`, claimed in ascending order
  // by whichever thread is free; `thread` is 0 .. size()-1 (for scratch). Returns when all are
  // done. The first exception is rethrown here. A call from inside fn runs serially under the
  // number of its thread. One caller at a time.
  void parallel_for(int64_t n, int64_t grain, RangeFn fn);

  struct Phase {
    int64_t n, grain;
    RangeFn fn;
  };
  // One parallel_for after the other as one region: a phase begins when all chunks of the one
  // before are done, and threads pass from phase to phase without the caller. After an exception no
  // further phase begins.
  void parallel_phases(std::span<const Phase> phases);

  // Regions that were given to more than one thread so far. The caller's thread only.
  int64_t num_regions() const { return num_regions_; }

 private:
  // A thread spins for a moment before it sleeps, and longer as long as what it waits for came so
  // soon, some waits ago, that it would only just have fallen asleep. `patience`: waits of this
  // thread that will spin longer. sleep() returns when `done` may have come true.
  template <class Done, class Sleep>
  void wait(int* patience, const Done& done, const Sleep& sleep);
  void work(int thread);  // reads no member that the constructor is still filling
  uint64_t claim();
  void run_chunks(int thread, uint64_t claimed);
  void run_chunk(int64_t index, int thread);
  uint64_t begin_phase();

  // All that a thread needs to take part lies in one line of the cache.
  struct alignas(128) Job {
    // High half: chunks of the phase that nobody has claimed, signed. Low half: those that are not
    // finished, and one more while phases follow; 0: the region is over.
    std::atomic<uint64_t> state{0};
    // The rest stays as it is while a claimed chunk is unfinished.
    Phase phase{0, 1, RangeFn()};
    int64_t chunks = 0;
    const Phase *next = nullptr, *end = nullptr;
  } job_;
  alignas(128) std::atomic<int> signal_{0};  // sleeping workers wait for another value
  std::atomic<int> asleep_{0};               // workers
  std::atomic<int> joining_{0};              // 1: the caller sleeps
  // When somebody was last woken; how long that takes is not the work's fault.
  std::atomic<std::chrono::steady_clock::time_point> woken_{};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards error_ while chunks run
  std::exception_ptr error_;
  int64_t num_regions_ = 0;
  int joiner_patience_ = 0;
  std::vector<std::thread> workers_;
};

// Cores that this process may run on.
int available_cores();

}  // namespace fathom
