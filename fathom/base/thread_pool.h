// A fork-join pool: regions are short and many (several per layer), so waiting threads spin for a
// moment and then sleep. Beside other busy processes nobody waits for a thread that has no core:
// work belongs to whoever claims it, and only claimed chunks are waited for.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom {

// Non-owning reference to a callable void(begin, end, thread); valid for the call it is passed to.
class RangeFn {
 public:
  template <class F>
  RangeFn(const F& f)  // NOLINT: implicit by design
      : object_(&f), call_([](const void* o, int64_t b, int64_t e, int t) {
          (*static_cast<const F*>(o))(b, e, t);
        }) {}
  void operator()(int64_t begin, int64_t end, int thread) const {
    call_(object_, begin, end, thread);
  }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t, int64_t, int);
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

 private:
  void work(int thread);  // reads no member that the constructor is still filling
  int run_chunks(int thread);

  struct Job {  // stays as it is while a claimed chunk is unfinished
    const RangeFn* fn = nullptr;
    int64_t n = 0, grain = 1;
    int chunks = 0;
  } job_;
  alignas(64) std::atomic<int> unclaimed_{0};  // chunks; none left: 0 or less
  alignas(64) std::atomic<int> finished_{0};   // chunks of the job that workers have finished
  alignas(64) std::atomic<int> signal_{0};     // sleeping workers wait for another value
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false}, inside_{false};
  std::mutex mutex_;  // guards error_
  std::exception_ptr error_;
  std::vector<std::thread> workers_;
};

// Cores that this process may run on.
int available_cores();

}  // namespace fathom
