#include "fathom/cli/sweep_result.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr int kResamples = 10000;
constexpr size_t kLowEvals = 2;
constexpr double kCollapsedDivergence = 1, kCollapsedEntropy = 0.01;

double mean(std::span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

std::vector<double> values_of(const SweepRun& run, const std::string& name) {
  const RunSeries* s = run.find(name);
  return s ? s->value : std::vector<double>();
}

std::string why_collapsed(const SweepRun& run, std::span<const double> evals) {
  if (!run.failed.empty()) return "broke off: " + run.failed;
  if (evals.size() > kLowEvals &&
      std::ranges::all_of(evals.last(kLowEvals), [&](double a) { return a < evals[0]; }))
    return "below the base";
  for (const double d : values_of(run, "divergence/mean"))
    if (!(d <= kCollapsedDivergence)) return "divergence above 1 nat per token";
  const std::vector<double> entropy = values_of(run, "entropy/token");
  if (!entropy.empty() && !(entropy.back() >= kCollapsedEntropy)) return "entropy below 0.01";
  return "";
}

}  // namespace

Interval bootstrap_mean(std::span<const double> values) {
  Interval out{.mean = mean(values), .count = values.size()};
  if (values.empty()) return out;
  std::vector<double> means;
  Rng rng(1, "bootstrap");
  for (int i = 0; i < kResamples; ++i) {
    double sum = 0;
    for (size_t k = 0; k < values.size(); ++k) sum += values[rng.below(values.size())];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  std::ranges::sort(means);
  constexpr size_t kTail = kResamples / 40;
  out.low = means[kTail];
  out.high = means[kResamples - 1 - kTail];
  return out;
}

std::string interval_text(const Interval& i) {
  if (i.count == 0) return "-";
  if (i.count == 1) return fmt::format("{:.3f}", i.mean);
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", i.mean, i.low, i.high);
}

Outcome outcome_of(const SweepRun& run) {
  const std::vector<double> evals = values_of(run, "eval/accuracy");
  Outcome out{.collapsed = why_collapsed(run, evals)};
  if (evals.empty()) return out;
  out.base = evals[0];
  out.accuracy = evals.back();
  return out;
}

std::optional<double> mean_of(const SweepRun& run, const std::string& series) {
  const std::vector<double> values = values_of(run, series);
  if (values.empty()) return std::nullopt;
  return mean(values);
}

Interval RateResult::accuracy() const {
  std::vector<double> values;
  for (const auto& [seed, outcome] : outcomes) values.push_back(outcome.accuracy);
  return bootstrap_mean(values);
}

int64_t RateResult::num_collapsed() const {
  return std::ranges::count_if(outcomes, [](const auto& o) { return !o.second.collapsed.empty(); });
}

Interval RateResult::mean(const std::string& series) const {
  std::vector<double> values;
  for (const auto& [seed, run] : runs)
    if (const std::optional<double> v = mean_of(run, series)) values.push_back(*v);
  return bootstrap_mean(values);
}

const RateResult* ArmResult::best() const {
  const RateResult* out = nullptr;
  for (const RateResult& r : rates)
    if (!r.runs.empty() && (!out || r.accuracy().mean > out->accuracy().mean)) out = &r;
  return out;
}

SweepResults::SweepResults(const Sweep& sweep, const std::string& folder) : sweep_(sweep) {
  for (const SweepStudy& study : sweep.studies)
    for (const std::string& regime : study.regimes)
      for (const SweepArm& arm : study.arms) {
        ArmResult& a = arms_[{study.name + "/" + regime, arm.name}];
        a.regime = regime;
        a.arm = arm.name;
        for (const double rate : study.rates) a.rates.push_back({.rate = rate});
      }
  for (const SweepCell& cell : sweep.cells) {
    if (!sweep_run_done(folder, cell)) continue;
    SweepRun run = read_sweep_run(folder, cell);
    ++num_runs_;
    cpu_s_ += run.cpu_s;
    ArmResult& a = arms_.at({sweep.studies[cell.study].name + "/" + cell.regime, cell.arm});
    RateResult& r = *std::ranges::find(a.rates, cell.rate, &RateResult::rate);
    r.outcomes[cell.seed] = outcome_of(run);
    r.runs[cell.seed] = std::move(run);
  }
}

const ArmResult& SweepResults::of(const SweepStudy& study, const std::string& regime,
                                  const std::string& arm) const {
  return arms_.at({study.name + "/" + regime, arm});
}

Interval paired_difference(const RateResult& a, const RateResult& b) {
  std::vector<double> differences;
  for (const auto& [seed, outcome] : a.outcomes)
    if (const auto other = b.outcomes.find(seed); other != b.outcomes.end())
      differences.push_back(outcome.accuracy - other->second.accuracy);
  return bootstrap_mean(differences);
}

}  // namespace fathom
