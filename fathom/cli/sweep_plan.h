// What a sweep is: studies that compare arms in several regimes, at several learning rates and with
// several seeds, each cell one run of the same recipe. Format: docs/formats.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

struct SweepArm {
  std::string name;
  std::string against;  // the arm that it is compared with; empty: none
};

struct SweepStudy {
  std::string name, title, about;
  std::vector<std::string> curves;  // series that are drawn before the outcome
  std::vector<std::string> regimes;
  std::vector<SweepArm> arms;
  std::vector<double> rates;  // learning rates, ascending
  int64_t seeds = 0;          // 1 .. seeds

  const SweepArm& arm(const std::string& name) const;
};

// One run.
struct SweepCell {
  size_t study = 0;
  std::string regime, arm;
  double rate = 0;
  int64_t seed = 0;
  std::string key;     // names its files; no two cells share it
  std::string recipe;  // TOML, complete
  int64_t steps = 0;
};

struct Sweep {
  std::vector<SweepStudy> studies;
  std::vector<SweepCell> cells;  // seed by seed, so that an unfinished sweep has whole pairs
};

// `only`: names of the studies that are wanted; empty: all. Every cell's recipe is checked. Throws
// Error that names the file, and the study where it can.
Sweep read_sweep(const std::string& path, const std::vector<std::string>& only);

}  // namespace fathom
