// Table and JSON lines of `fathom bench kernel`.
#include "fathom/cli/bench_kernel.h"

#include <fmt/core.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/thread_pool.h"
#include "fathom/cli/command.h"
#include "fathom/cli/machine.h"
#include "fathom/kernels/bench_gemm.h"
#include "fathom/kernels/bench_rows.h"
#include "fathom/kernels/cpu/simd/target.h"

namespace fathom {
namespace {

// One line of the table, whichever kernel it measures.
struct Row {
  std::string name, shape, check;  // check: what was compared, or WRONG
  BenchResult time;
  bool memory_bound, right;
  double error, tolerance;
};

std::string json_line(const Row& r, const Machine& machine) {
  Json line = Json::object();
  line.set("kernel", Json::string(r.name));
  line.set("shape", Json::string(r.shape));
  line.set("threads", Json::number(int64_t{r.time.threads}));
  line.set("repetitions", Json::number(int64_t{r.time.repetitions}));
  line.set("median_s", Json::number(r.time.median_s));
  line.set("spread", Json::number(r.time.spread));
  line.set(r.memory_bound ? "bytes_per_s" : "flop_per_s", Json::number(r.time.rate));
  line.set("peak", Json::string(r.memory_bound ? "read bandwidth" : "fma"));
  line.set("percent_of_peak", Json::number(r.time.percent_of_peak));
  line.set("best_percent", Json::number(r.time.best_percent));
  line.set(r.tolerance < 0 ? "exact" : "checked", Json::boolean(r.right));
  if (r.tolerance >= 0 && std::isfinite(r.error)) line.set("error", Json::number(r.error));
  if (r.tolerance >= 0) line.set("tolerance", Json::number(r.tolerance));
  line.set("isa", Json::string(simd_target_name()));
  line.set("cpu", Json::string(machine.cpu));
  return line.dump() + "\n";
}

Row row_of(const BenchCase& c, const GemmBenchResult& r) {
  return {.name = c.name(),
          .shape = c.shape(),
          .check = r.exact ? "exact" : "WRONG",
          .time = r.time,
          .memory_bound = c.memory_bound,
          .right = r.exact,
          .error = 0,
          .tolerance = -1};
}

Row row_of(const RowBenchCase& c, const RowBenchResult& r) {
  return {.name = c.name,
          .shape = c.shape,
          .check = !r.checked ? fmt::format("WRONG by {:.1e}, allowed {:.0e}", r.error, c.tolerance)
                   : r.error == 0 ? "equal"
                                  : fmt::format("{:.0e}", r.error),
          .time = r.time,
          .memory_bound = c.memory_bound,
          .right = r.checked,
          .error = r.error,
          .tolerance = c.tolerance};
}

void print(const Row& r) {
  fmt::print("{:<18} {:<26} {:>7} {:>8.3f} ms {:>6.0f}% {:>6.1f} {:<7} {:>5.1f}% {:>5.1f}%  {}\n",
             r.name, r.shape, r.time.threads, 1e3 * r.time.median_s, 100 * r.time.spread,
             r.time.rate / 1e9, r.memory_bound ? "GB/s" : "GFLOP/s", r.time.percent_of_peak,
             r.time.best_percent, r.check);
  std::fflush(stdout);
}

void print_head(const Machine& machine) {
  fmt::print(
      "{}, {}; peak is the machine's own, measured between the repetitions: fused multiply-adds\n"
      "for rows in GFLOP/s, reading from memory for rows in GB/s (bytes read and written; more "
      "than\n"
      "100% where the operands stay in a cache). check: exact bits, or the worst error against "
      "the\n"
      "reference kernels relative to the largest output\n\n",
      machine.cpu, simd_target_name());
  fmt::print("{:<18} {:<26} {:>7} {:>11} {:>7} {:>14} {:>6} {:>6}  {}\n", "kernel", "shape",
             "threads", "median", "spread", "rate", "% peak", "best", "check");
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
  print_head(machine);
  std::string lines;
  bool right = true;
  const auto wanted = [&](const std::string& name, const std::string& shape) {
    return (name + " " + shape).find(options.filter) != std::string::npos;
  };
  const auto report = [&](const Row& row) {
    right = right && row.right;
    print(row);
    lines += json_line(row, machine);
  };
  for (const BenchCase& c : gemm_bench_cases()) {
    if (!wanted(c.name(), c.shape())) continue;
    for (const int t : threads) {
      ThreadPool pool(t);
      report(row_of(c, run_gemm_bench(c, pool, options.seconds)));
    }
  }
  std::unique_ptr<RowBench> bench;
  for (const RowBenchCase& c : row_bench_cases({})) {
    if (!wanted(c.name, c.shape)) continue;
    if (!bench) bench = std::make_unique<RowBench>(cpu_simd(), RowBenchSizes{});
    for (const int t : threads) {
      ThreadPool pool(t);
      report(row_of(c, bench->run(c.name, pool, options.seconds)));
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
  return right ? kExitOk : kExitFailed;
}

}  // namespace fathom
