#include "fathom/cli/sweep_page.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/cli/html_chart.h"
#include "fathom/cli/progress.h"

namespace fathom {
namespace {

struct Table {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

// ---- tables ------------------------------------------------------------------------------------

std::string rate_text(double rate) { return fmt::format("{:g}", rate); }

std::string collapse_text(const RateResult& r) {
  const int64_t n = r.num_collapsed();
  return n == 0 ? "" : fmt::format(", {} of {} collapsed", n, r.outcomes.size());
}

// Best against best, where the arm names another one.
std::string difference_text(const SweepResults& results, const SweepStudy& study,
                            const ArmResult& a) {
  const std::string& against = study.arm(a.arm).against;
  if (against.empty() || !a.best()) return "";
  const RateResult* other = results.of(study, a.regime, against).best();
  if (!other) return "";
  const Interval d = paired_difference(*a.best(), *other);
  return d.count == 0
             ? ""
             : fmt::format("{:+.3f} [{:+.3f}, {:+.3f}] to {}", d.mean, d.low, d.high, against);
}

Table outcome_table(const SweepResults& results, const SweepStudy& study) {
  Table t{.title = "held-out accuracy, mean over seeds [95 %]", .header = {"regime", "arm"}};
  for (const double rate : study.rates) t.header.push_back("rate " + rate_text(rate));
  t.header.insert(t.header.end(), {"best", "before", "paired difference, best rates"});
  for (const std::string& regime : study.regimes)
    for (const SweepArm& arm : study.arms) {
      const ArmResult& a = results.of(study, regime, arm.name);
      std::vector<std::string> row = {regime, arm.name};
      for (const RateResult& r : a.rates)
        row.push_back(interval_text(r.accuracy()) + collapse_text(r));
      row.push_back(a.best() ? rate_text(a.best()->rate) : "-");
      row.push_back(a.best() ? fmt::format("{:.3f}", a.best()->outcomes.begin()->second.base)
                             : "-");
      row.push_back(difference_text(results, study, a));
      t.rows.push_back(std::move(row));
    }
  return t;
}

struct Quantity {
  const char *series, *name;
};
constexpr Quantity kQuantities[] = {{"ratio/mean", "ratio"},
                                    {"divergence/mean", "sequence KL"},
                                    {"divergence/largest", "largest"},
                                    {"masked/sequences", "masked"},
                                    {"masked/clipped_tokens", "clipped"},
                                    {"agreement/routing", "routing"},
                                    {"mismatch/kl", "mismatch KL"},
                                    {"mismatch/replayed_kl", "replayed"},
                                    {"kl/reference", "KL to reference"},
                                    {"entropy/token", "entropy"},
                                    {"support/singleton_share", "singletons"},
                                    {"support/kept_mass", "kept mass"},
                                    {"optimizer/grad_norm", "gradient"},
                                    {"reward/right", "right"},
                                    {"eval/thinking", "thinking"},
                                    {"reward/language_always", "language"}};

double middle_rate(const SweepStudy& study) { return study.rates[study.rates.size() / 2]; }

const RateResult& middle_of(const SweepStudy& study, const ArmResult& a) {
  return a.rates[study.rates.size() / 2];
}

Table mechanism_table(const SweepResults& results, const SweepStudy& study) {
  Table t{
      .title = fmt::format("means over steps and seeds at rate {}", rate_text(middle_rate(study))),
      .header = {"regime", "arm"}};
  for (const std::string& regime : study.regimes)
    for (const SweepArm& arm : study.arms) t.rows.push_back({regime, arm.name});
  for (const Quantity& q : kQuantities) {
    std::vector<std::string> column;
    for (const std::string& regime : study.regimes)
      for (const SweepArm& arm : study.arms) {
        const Interval i = middle_of(study, results.of(study, regime, arm.name)).mean(q.series);
        column.push_back(i.count == 0 ? "" : fmt::format("{:.3g}", i.mean));
      }
    if (std::ranges::all_of(column, [](const std::string& c) { return c.empty(); })) continue;
    t.header.emplace_back(q.name);
    for (size_t i = 0; i < column.size(); ++i) t.rows[i].push_back(column[i]);
  }
  t.header.emplace_back("tokens of a run");
  size_t row = 0;
  for (const std::string& regime : study.regimes)
    for (const SweepArm& arm : study.arms) {
      double sum = 0, n = 0;
      for (const auto& [seed, run] : middle_of(study, results.of(study, regime, arm.name)).runs) {
        sum += static_cast<double>(run.tokens);
        ++n;
      }
      t.rows[row++].push_back(n == 0 ? "" : human_count(sum / n));
    }
  return t;
}

std::string markdown(const Table& t) {
  std::string out = t.title + "\n\n|";
  for (const std::string& h : t.header) out += " " + h + " |";
  out += "\n|";
  for (size_t i = 0; i < t.header.size(); ++i) out += "---|";
  for (const auto& row : t.rows) {
    out += "\n|";
    for (const std::string& cell : row) out += " " + cell + " |";
  }
  return out + "\n";
}

// ---- charts ------------------------------------------------------------------------------------

// Adds one faint line for each run and their mean, at the steps that all of them have.
void add_runs(const std::vector<const SweepRun*>& runs, const std::string& series,
              const std::string& arm, int color, Chart* chart) {
  std::map<int64_t, std::pair<double, size_t>> sums;
  size_t count = 0;
  for (const SweepRun* run : runs) {
    const RunSeries* s = run->find(series);
    if (!s) continue;
    ++count;
    ChartLine line{.name = arm, .y = s->value, .color = color, .faint = true};
    for (const int64_t step : s->step) line.x.push_back(static_cast<double>(step));
    chart->lines.push_back(std::move(line));
    for (size_t i = 0; i < s->step.size(); ++i) {
      auto& [sum, n] = sums[s->step[i]];
      sum += s->value[i];
      ++n;
    }
  }
  ChartLine mean{.name = arm, .color = color};
  for (const auto& [step, sum] : sums) {
    if (sum.second < count) continue;
    mean.x.push_back(static_cast<double>(step));
    mean.y.push_back(sum.first / static_cast<double>(sum.second));
  }
  if (count > 0) chart->lines.push_back(std::move(mean));
}

std::vector<const SweepRun*> runs_of(const ArmResult& a, size_t first_rate, size_t end_rate) {
  std::vector<const SweepRun*> out;
  for (size_t i = first_rate; i < end_rate; ++i)
    for (const auto& [seed, run] : a.rates[i].runs) out.push_back(&run);
  return out;
}

std::string runs_chart(const SweepResults& results, const SweepStudy& study,
                       const std::string& regime, const std::string& series,
                       const std::string& title, size_t first_rate, size_t end_rate) {
  Chart chart{.title = title, .x_label = "step", .log_switch = true};
  for (size_t i = 0; i < study.arms.size(); ++i)
    add_runs(runs_of(results.of(study, regime, study.arms[i].name), first_rate, end_rate), series,
             study.arms[i].name, static_cast<int>(i), &chart);
  return chart.lines.empty() ? "" : chart_html(chart);
}

// Share of the answers with a negative advantage in each of kBins stretches of D.
std::string divergence_histogram(const SweepResults& results, const SweepStudy& study,
                                 const std::string& regime) {
  constexpr size_t kBins = 40;
  Chart chart{.title = fmt::format("{}: sequence KL of wrong answers after the last step", regime),
              .x_label = "mean log(mu / pi) of an answer, nats per token",
              .y_label = fmt::format("share of answers, rate {}", rate_text(middle_rate(study))),
              .last_values = false};
  std::vector<std::vector<double>> values(study.arms.size());
  std::vector<double> all;
  for (size_t i = 0; i < study.arms.size(); ++i)
    for (const auto& [seed, run] :
         middle_of(study, results.of(study, regime, study.arms[i].name)).runs) {
      values[i].insert(values[i].end(), run.negative_divergence.begin(),
                       run.negative_divergence.end());
      all.insert(all.end(), run.negative_divergence.begin(), run.negative_divergence.end());
      if (const auto delta = mean_of(run, "divergence/delta"); delta && chart.marks.empty())
        chart.marks.push_back({*delta, "delta"});
    }
  if (all.empty()) return "";
  std::ranges::sort(all);
  const double low = all[all.size() / 200], high = all[all.size() - 1 - all.size() / 200];
  if (!(low < high)) return "";
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].empty()) continue;
    ChartLine line{.name = study.arms[i].name, .color = static_cast<int>(i)};
    std::vector<double> bins(kBins);
    for (const double v : values[i]) {
      const double place = std::clamp((v - low) / (high - low) * kBins, 0.0, kBins - 1.0);
      bins[static_cast<size_t>(place)] += 1 / static_cast<double>(values[i].size());
    }
    for (size_t b = 0; b < kBins; ++b) {  // stairs
      for (const size_t end : {b, b + 1}) {
        line.x.push_back(low + (high - low) * static_cast<double>(end) / kBins);
        line.y.push_back(bins[b]);
      }
    }
    chart.lines.push_back(std::move(line));
  }
  return chart_html(chart);
}

std::string study_html(const SweepResults& results, const SweepStudy& study) {
  std::string out = fmt::format("<h2>{}</h2>\n<p class=\"sub\">{}</p>\n", html_escape(study.title),
                                html_escape(study.about));
  const size_t rates = study.rates.size();
  out +=
      "<h3>what it controls: every run thin, the mean of an arm thick</h3>\n<div "
      "class=\"charts\">\n";
  for (const std::string& curve : study.curves)
    for (const std::string& regime : study.regimes)
      out += runs_chart(results, study, regime, curve, regime + ": " + curve, 0, rates);
  for (const std::string& regime : study.regimes)
    out += divergence_histogram(results, study, regime);
  out += "</div>\n<h3>held-out accuracy by learning rate</h3>\n<div class=\"charts\">\n";
  for (const std::string& regime : study.regimes)
    for (size_t i = 0; i < rates; ++i)
      out += runs_chart(results, study, regime, "eval/accuracy",
                        fmt::format("{}, rate {}", regime, rate_text(study.rates[i])), i, i + 1);
  out += "</div>\n";
  for (const Table& t : {outcome_table(results, study), mechanism_table(results, study)})
    out += fmt::format("<h3>{}</h3>\n<div class=\"figures\">{}</div>\n", html_escape(t.title),
                       table_html(t.header, t.rows));
  return out;
}

}  // namespace

std::string sweep_page(const SweepResults& results) {
  std::string body = fmt::format(
      "<h1>Sweep</h1>\n<p class=\"sub\">{} of {} runs, {} of processor time; written by fathom "
      "sweep. Accuracy: that of a run's last evaluation; intervals: bootstrap over "
      "seeds; runs of one seed have the same tasks and sampling seeds. Collapsed: broke off, the "
      "last two evaluations both below the base's, a step's mean sequence KL above 1 nat per "
      "token, "
      "or entropy below 0.01 at the end.</p>\n",
      results.num_runs(), results.sweep().cells.size(), human_duration(results.cpu_s()));
  for (const SweepStudy& study : results.sweep().studies) body += study_html(results, study);
  return html_page("Sweep", body);
}

std::string sweep_markdown(const SweepResults& results) {
  std::string out;
  for (const SweepStudy& study : results.sweep().studies) {
    out += fmt::format("### {}\n\n{}\n\n", study.title, study.about);
    for (const Table& t : {outcome_table(results, study), mechanism_table(results, study)})
      out += markdown(t) + "\n";
  }
  return out;
}

}  // namespace fathom
