// What the runs of a sweep say: outcome of a run, means with intervals over seeds, paired
// differences of arms, collapsed runs. The rules are fixed here, before any result is seen.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fathom/cli/sweep_run.h"

namespace fathom {

// Mean with the central 95 % of its bootstrap distribution (10000 resamples, fixed seed). With five
// seeds such an interval is somewhat too narrow.
struct Interval {
  double mean = 0, low = 0, high = 0;
  size_t count = 0;
};
Interval bootstrap_mean(std::span<const double> values);
std::string interval_text(const Interval& i);  // "0.873 [0.861, 0.884]"; "-" without values

struct Outcome {
  double base = 0;        // held-out accuracy before the first step
  double accuracy = 0;    // of the last evaluation
  std::string collapsed;  // empty: not
};
// Collapsed: broke off; or the last two evaluations both below the one before the first step; or
// the mean divergence of a step's answers above 1 nat per token; or the entropy below 0.01 at the
// end.
Outcome outcome_of(const SweepRun& run);
// Mean of a series over its steps; nothing where the run has none of that name.
std::optional<double> mean_of(const SweepRun& run, const std::string& series);

// The runs of one arm in one regime at one rate, by seed.
struct RateResult {
  double rate = 0;
  std::map<int64_t, SweepRun> runs;
  std::map<int64_t, Outcome> outcomes;

  Interval accuracy() const;
  int64_t num_collapsed() const;
  Interval mean(const std::string& series) const;  // over seeds
};

struct ArmResult {
  std::string regime, arm;
  std::vector<RateResult> rates;   // ascending
  const RateResult* best() const;  // by mean accuracy; null without runs
};

class SweepResults {
 public:
  // What is finished of it.
  SweepResults(const Sweep& sweep, const std::string& folder);

  const Sweep& sweep() const { return sweep_; }
  size_t num_runs() const { return num_runs_; }
  double cpu_s() const { return cpu_s_; }
  const ArmResult& of(const SweepStudy& study, const std::string& regime,
                      const std::string& arm) const;

 private:
  const Sweep& sweep_;
  size_t num_runs_ = 0;
  double cpu_s_ = 0;
  std::map<std::pair<std::string, std::string>, ArmResult> arms_;  // "STUDY/REGIME", arm
};

// Accuracy of a minus that of b over the seeds that both have.
Interval paired_difference(const RateResult& a, const RateResult& b);

}  // namespace fathom
