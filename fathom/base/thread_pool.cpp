#include "fathom/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "fathom/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fathom {
namespace {

// Which pool's worker this thread is: a nested call goes on under the worker's own number.
struct Worker {
  const ThreadPool* pool = nullptr;
  int thread = 0;
};
thread_local Worker this_worker;

// A decoded token has a region every few microseconds, and waking a thread costs as much. Measured:
// with 2 us here two threads decode no faster than one.
constexpr std::chrono::microseconds kIdleSpin{50};
// Waiting for the last claimed chunks; then sleeping frees a core for the thread that has them.
constexpr std::chrono::microseconds kJoinSpin{20};

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Whether `done` came true in time.
template <class F>
bool spin(std::chrono::microseconds time, const F& done) {
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 8; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

ThreadPool::ThreadPool(int num_threads) {
  FM_CHECK(num_threads >= 1, "num_threads is {}", num_threads);
  for (int t = 1; t < num_threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  signal_.fetch_add(1);
  signal_.notify_all();
  for (std::thread& w : workers_) w.join();
}

// A claim that succeeds keeps its job open until it is reported in finished_, so the job's fields
// can be read; one that fails never looks at them. Returns how many chunks were run.
int ThreadPool::run_chunks(int thread) {
  int count = 0;
  for (int left; (left = unclaimed_.fetch_sub(1, std::memory_order_acq_rel)) > 0; ++count) {
    const Job& job = job_;
    const int64_t begin = (job.chunks - left) * job.grain;
    try {
      (*job.fn)(begin, std::min(begin + job.grain, job.n), thread);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
  return count;
}

void ThreadPool::work(int thread) {
  this_worker = {this, thread};
  const auto called = [this] { return unclaimed_.load() > 0 || stop_.load(); };
  while (!stop_) {
    if (!spin(kIdleSpin, called)) {
      asleep_.fetch_add(1);
      const int signal = signal_.load();
      if (!called()) signal_.wait(signal);  // a caller that saw nobody asleep is seen here
      asleep_.fetch_sub(1);
    }
    if (const int count = run_chunks(thread)) {
      finished_.fetch_add(count);
      finished_.notify_one();
    }
  }
}

void ThreadPool::parallel_for(int64_t n, int64_t grain, RangeFn fn) {
  if (n <= 0) return;
  grain = std::max<int64_t>({grain, 1, n / (INT32_MAX / 2)});
  if (workers_.empty() || n <= grain || inside_.exchange(true)) {
    const int thread = this_worker.pool == this ? this_worker.thread : 0;
    for (int64_t b = 0; b < n; b += grain) fn(b, std::min(b + grain, n), thread);
    return;
  }
  job_ = {&fn, n, grain, static_cast<int>((n + grain - 1) / grain)};
  finished_.store(0, std::memory_order_relaxed);
  unclaimed_.store(job_.chunks);
  if (asleep_.load() > 0) {
    signal_.fetch_add(1);
    signal_.notify_all();
  }
  const int others = job_.chunks - run_chunks(0);
  if (!spin(kJoinSpin, [&] { return finished_.load() == others; }))
    for (int seen; (seen = finished_.load()) != others;) finished_.wait(seen);
  inside_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace fathom
