// fathom bench exactness: what it costs that bits depend on a row alone.
#pragma once

#include <cstdint>
#include <string>

#include "fathom/base/options.h"

namespace fathom {

struct BenchExactnessOptions {
  std::string model = "m120m", filter, json;
  int64_t threads = 0, depth = 2048;
  double seconds = 1;
  void fields(OptionSet& o) {
    o.add("model", &model, "config.json or known shape whose decoded token is measured");
    o.add("depth", &depth, "keys that the decoded token sees");
    o.add("threads", &threads, "threads; 0: all cores");
    o.add("seconds", &seconds, "time for each row");
    o.add("filter", &filter, "only rows that contain this text");
    o.add("json", &json, "also write one JSON object a line to this file");
  }
};

// Prints a table; returns kExitFailed when a variant does not compute the same.
int run_bench_exactness(const BenchExactnessOptions& options);

}  // namespace fathom
