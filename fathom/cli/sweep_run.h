// The runs of a sweep: processes that take one cell after the other, each run leaving one file.
// Whatever is killed, at any moment, is done again; what is finished stays.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/cli/sweep_plan.h"
#include "fathom/train/run_log.h"

namespace fathom {

// What is left of a run.
struct SweepRun {
  std::string failed;  // why it did not reach its last step: a loss that is not finite; else empty
  int64_t tokens = 0;  // sampled tokens that it learned from
  double cpu_s = 0;
  std::vector<RunSeries> series;  // without times
  // D of the last step's answers under the final weights, with the rollout's experts and supports:
  // of those with a negative advantage, and of the others.
  std::vector<double> negative_divergence, other_divergence;

  const RunSeries* find(const std::string& name) const;
};

// FOLDER/runs/KEY.json. A run whose recipe was another one does not count.
bool sweep_run_done(const std::string& folder, const SweepCell& cell);
SweepRun read_sweep_run(const std::string& folder, const SweepCell& cell);  // throws Error

// Runs what is not done, in `jobs` processes of one thread each, and shows how far they are.
// Several callers may work on one folder. Returns the number of runs made. Throws Error when one
// could not be made; the others go on.
int64_t run_sweep(const Sweep& sweep, const std::string& folder, const std::string& tokenizer,
                  int64_t jobs);

}  // namespace fathom
