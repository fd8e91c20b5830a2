// fathom bench kernel: each kernel against this machine's own FMA peak or read bandwidth.
#pragma once

#include <cstdint>
#include <string>

#include "fathom/base/options.h"

namespace fathom {

struct BenchKernelOptions {
  std::string filter, json;
  double seconds = 0.5;
  int64_t threads = 0;
  void fields(OptionSet& o) {
    o.add("filter", &filter, "only kernels whose name or shape contains this text");
    o.add("threads", &threads, "0 measures one thread and all cores");
    o.add("seconds", &seconds, "time for each row");
    o.add("json", &json, "also write one JSON object a line to this file");
  }
};

// Prints a table; returns kExitFailed when a matrix product's bits are not those of the scalar rule
// or another kernel is further from the reference than its tolerance.
int run_bench_kernel(const BenchKernelOptions& options);

}  // namespace fathom
