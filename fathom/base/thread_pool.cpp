#include "fathom/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "fathom/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fathom {
namespace {

using std::chrono::microseconds, std::chrono::steady_clock;

// Which pool's worker this thread is: a nested call goes on under the worker's own number.
struct Worker {
  const ThreadPool* pool = nullptr;
  int thread = 0;
};
thread_local Worker this_worker;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Whether `done` came true before `end`.
template <class F>
bool spin(steady_clock::time_point end, const F& done) {
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  } while (steady_clock::now() < end);
  return false;
}

}  // namespace

// Waking a thread takes 15 us of the one that wakes it, and it runs after 60 (measured on a virtual
// machine), while a decoded token has a region every few microseconds.
template <class Done, class Sleep>
void ThreadPool::wait(int* patience, const Done& done, const Sleep& sleep) {
  constexpr microseconds kShort{2}, kLong{50};
  constexpr int kPatience = 16;  // waits
  const auto start = steady_clock::now();
  if (spin(start + (*patience > 0 ? kLong : kShort), done)) return;
  sleep();
  if (woken_.load() < start + kLong)
    *patience = kPatience;
  else if (*patience > 0)
    --*patience;
}

namespace {

// Job::state. Claims that fail may take the high half below zero.
constexpr uint64_t kClaim = uint64_t{1} << 32, kFinish = 1;
constexpr int64_t unclaimed(uint64_t state) { return static_cast<int64_t>(state) >> 32; }
constexpr int64_t unfinished(uint64_t state) { return static_cast<int64_t>(state & UINT32_MAX); }

// Chunks of a phase; `grain` grows so that they can be counted.
int64_t num_chunks(ThreadPool::Phase& p) {
  p.grain = std::max<int64_t>({p.grain, 1, p.n / (INT32_MAX / 2)});
  return p.n <= 0 ? 0 : (p.n + p.grain - 1) / p.grain;
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

// A claim that succeeds keeps its phase open until it is reported, so the job's fields can be read;
// one that fails never looks at them. Returns the state before.
uint64_t ThreadPool::claim() { return job_.state.fetch_sub(kClaim); }

void ThreadPool::run_chunk(int64_t index, int thread) {
  const Phase& p = job_.phase;
  const int64_t begin = index * p.grain;
  try {
    p.fn(begin, std::min(begin + p.grain, p.n), thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

// The next phase begins with a claim of its first chunk; without one the region is over. Only while
// no claimed chunk is unfinished.
uint64_t ThreadPool::begin_phase() {
  job_.chunks = 0;
  while (job_.chunks == 0 && job_.next != job_.end && !error_) {
    job_.phase = *job_.next++;
    job_.chunks = num_chunks(job_.phase);
  }
  if (job_.chunks == 0) {
    job_.state.store(0);
    return 0;
  }
  const auto chunks = static_cast<uint64_t>(job_.chunks);
  const uint64_t state = chunks * (kClaim + kFinish) + (job_.next != job_.end ? kFinish : 0);
  job_.state.store(state - kClaim);
  if (asleep_.load() > 0) {
    woken_.store(steady_clock::now());
    signal_.fetch_add(1);
    signal_.notify_all();
  }
  return state;
}

// `claimed` is what claim() or begin_phase() returned.
void ThreadPool::run_chunks(int thread, uint64_t claimed) {
  while (unclaimed(claimed) > 0) {
    const bool more = job_.next != job_.end;
    run_chunk(job_.chunks - unclaimed(claimed), thread);
    claimed = job_.state.fetch_sub(kClaim + kFinish);
    if (unfinished(claimed) > (more ? 2 : 1)) continue;
    // This was the last chunk of the phase.
    claimed = more ? begin_phase() : 0;
    if (thread != 0 && joining_.load() != 0) {
      woken_.store(steady_clock::now());
      joining_.store(0);
      joining_.notify_one();
    }
  }
}

void ThreadPool::work(int thread) {
  this_worker = {this, thread};
  const auto called = [this] { return unclaimed(job_.state.load()) > 0 || stop_.load(); };
  const auto sleep = [this, called] {
    asleep_.fetch_add(1);
    const int signal = signal_.load();
    if (!called()) signal_.wait(signal);  // a caller that saw nobody asleep is seen here
    asleep_.fetch_sub(1);
  };
  int patience = 0;
  while (!stop_) {
    wait(&patience, called, sleep);
    run_chunks(thread, claim());
  }
}

void ThreadPool::parallel_for(int64_t n, int64_t grain, RangeFn fn) {
  const Phase phase{n, grain, fn};
  parallel_phases({&phase, 1});
}

void ThreadPool::parallel_phases(std::span<const Phase> phases) {
  const bool nested = this_worker.pool == this;
  if (workers_.empty() || nested ||
      std::all_of(phases.begin(), phases.end(), [](const Phase& p) { return p.n <= p.grain; })) {
    const int thread = nested ? this_worker.thread : 0;
    for (Phase p : phases)
      for (int64_t chunks = num_chunks(p), i = 0; i < chunks; ++i)
        p.fn(i * p.grain, std::min((i + 1) * p.grain, p.n), thread);
    return;
  }
  const Worker outside = std::exchange(this_worker, {this, 0});
  ++num_regions_;
  job_.next = phases.data();
  job_.end = phases.data() + phases.size();
  run_chunks(0, begin_phase());
  const auto called = [this] {
    const uint64_t state = job_.state.load();
    return unclaimed(state) > 0 || unfinished(state) == 0;
  };
  // Sleeping frees a core for the threads that have the last chunks.
  const auto sleep = [this, called] {
    joining_.store(1);
    if (!called()) joining_.wait(1);  // a thread that saw nobody waiting is seen here
    joining_.store(0);
  };
  while (unfinished(job_.state.load()) > 0) {
    wait(&joiner_patience_, called, sleep);
    if (unclaimed(job_.state.load()) > 0) run_chunks(0, claim());
  }
  this_worker = outside;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace fathom
