// The loop of every kernel benchmark: a kernel and this machine's peak, measured in turn.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace fathom {

struct BenchResult {
  int threads = 0;
  int repetitions = 0;
  double median_s = 0;         // one call
  double spread = 0;           // (90th - 10th percentile) / median
  double rate = 0;             // at the median: flop/s, or bytes/s when memory-bound
  double percent_of_peak = 0;  // median over repetitions of rate / peak measured around it
  double best_percent = 0;     // fastest repetition against the highest peak seen
};

inline constexpr double kBenchBurst_s = 2e-3;  // one measurement, of a kernel or of the FMA peak

inline double bench_now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double bench_quantile(std::vector<double> v, double q) {
  std::ranges::sort(v);
  return v[static_cast<size_t>(q * static_cast<double>(v.size() - 1) + 0.5)];
}

// Alternates call() with peak() (in units of `work` per second) for about `seconds`, five times at
// least. `threads` of the result is left to the caller.
template <class Call, class Peak>
BenchResult measure_against_peak(const Call& call, const Peak& peak, double work, double seconds) {
  double start = bench_now_s();
  call();  // warms caches, scratch and threads
  const int calls =
      std::max(1, static_cast<int>(kBenchBurst_s / std::max(1e-7, bench_now_s() - start)));
  std::vector<double> times, percents;
  double best_peak = peak(), last_peak = best_peak, best_rate = 0;
  for (const double end = bench_now_s() + seconds; times.size() < 5 || bench_now_s() < end;) {
    start = bench_now_s();
    for (int i = 0; i < calls; ++i) call();
    const double time = (bench_now_s() - start) / calls, next = peak();
    times.push_back(time);
    percents.push_back(100 * work / time / (0.5 * (last_peak + next)));
    best_rate = std::max(best_rate, work / time);
    last_peak = next;
    best_peak = std::max(best_peak, next);
  }
  const double median = bench_quantile(times, 0.5);
  return {.repetitions = static_cast<int>(times.size()),
          .median_s = median,
          .spread = (bench_quantile(times, 0.9) - bench_quantile(times, 0.1)) / median,
          .rate = work / median,
          .percent_of_peak = bench_quantile(percents, 0.5),
          .best_percent = 100 * best_rate / best_peak};
}

}  // namespace fathom
