// Table and JSON lines of `fathom bench kernel`.
#include "fathom/cli/bench_kernel.h"

#include <fmt/core.h>

#include <cstdio>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/thread_pool.h"
#include "fathom/cli/command.h"
#include "fathom/cli/machine.h"
#include "fathom/kernels/bench_gemm.h"
#include "fathom/kernels/cpu/simd/peak.h"

namespace fathom {
namespace {

std::string json_line(const BenchCase& c, const BenchResult& r, const Machine& machine) {
  Json line = Json::object();
  line.set("kernel", Json::string(c.name()));
  line.set("shape", Json::string(c.shape()));
  line.set("threads", Json::number(int64_t{r.threads}));
  line.set("repetitions", Json::number(int64_t{r.repetitions}));
  line.set("median_s", Json::number(r.median_s));
  line.set("spread", Json::number(r.spread));
  line.set(c.memory_bound ? "bytes_per_s" : "flop_per_s", Json::number(r.rate));
  line.set("percent_of_peak", Json::number(r.percent_of_peak));
  line.set("best_percent", Json::number(r.best_percent));
  line.set("exact", Json::boolean(r.exact));
  line.set("isa", Json::string(simd_target_name()));
  line.set("cpu", Json::string(machine.cpu));
  return line.dump() + "\n";
}

}  // namespace

int run_bench_kernel(const BenchKernelOptions& options) {
  const Machine machine = inspect_machine();
  std::vector<int> threads = {1};
  if (options.threads > 0) {
    threads = {static_cast<int>(options.threads)};
  } else if (machine.cores > 1) {
    threads.push_back(machine.cores);
  }
  fmt::print("{}, {}; peak is the machine's own, measured between the repetitions\n\n", machine.cpu,
             simd_target_name());
  fmt::print("{:<18} {:<26} {:>7} {:>11} {:>7} {:>14} {:>6} {:>6}  {}\n", "kernel", "shape",
             "threads", "median", "spread", "rate", "% peak", "best", "bits");
  std::string lines;
  bool exact = true;
  for (const BenchCase& c : gemm_bench_cases()) {
    if ((c.name() + " " + c.shape()).find(options.filter) == std::string::npos) continue;
    for (const int t : threads) {
      ThreadPool pool(t);
      const BenchResult r = run_gemm_bench(c, pool, options.seconds);
      exact = exact && r.exact;
      fmt::print(
          "{:<18} {:<26} {:>7} {:>8.3f} ms {:>6.0f}% {:>6.1f} {:<7} {:>5.1f}% {:>5.1f}%  {}\n",
          c.name(), c.shape(), t, 1e3 * r.median_s, 100 * r.spread, r.rate / 1e9,
          c.memory_bound ? "GB/s" : "GFLOP/s", r.percent_of_peak, r.best_percent,
          r.exact ? "exact" : "WRONG");
      std::fflush(stdout);
      lines += json_line(c, r, machine);
    }
  }
  if (lines.empty()) {
    throw Error(Code::kNotFound, fmt::format("no kernel matches \"{}\"", options.filter),
                "run `fathom bench kernel` without --filter to see all");
  }
  if (!options.json.empty()) {
    AtomicWriter file(options.json);
    file.write(lines.data(), lines.size());
    file.commit();
  }
  return exact ? kExitOk : kExitFailed;
}

}  // namespace fathom
