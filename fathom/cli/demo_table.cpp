#include "fathom/cli/demo_table.h"

#include <fmt/core.h>

#include <algorithm>

#include "fathom/base/file.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

constexpr size_t kSamples = 3;

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

// The first correct answer of as many families as samples are shown, else any.
std::vector<const ProblemAnswer*> samples_of(const ProblemScores& scores) {
  std::vector<const ProblemAnswer*> out;
  for (const bool correct_only : {true, false}) {
    for (const ProblemAnswer& a : scores.answers) {
      const bool known = std::ranges::any_of(
          out, [&](const ProblemAnswer* o) { return o->problem.family == a.problem.family; });
      if (out.size() < kSamples && !known && (a.correct || !correct_only)) out.push_back(&a);
    }
  }
  return out;
}

std::string sample_text(const ProblemAnswer& a) {
  return fmt::format("{} ({}): {}\n  {}", a.problem.family, a.correct ? "right" : "wrong",
                     a.problem.prompt, a.text);
}

// Calls f(name, number) for every number of a stage.
template <class Stage, class F>
void each_number(Stage& s, F f) {
  f("first_token", s.first_token);
  f("first_s", s.first_s);
  f("steps", s.steps);
  f("tokens", s.tokens);
  f("seconds", s.seconds);
  f("loss_before", s.loss_before);
  f("loss_after", s.loss_after);
  f("kl_before", s.kl_before);
  f("kl_after", s.kl_after);
  f("mass", s.mass);
}

}  // namespace

void save_demo_stages(const std::string& path, const std::vector<DemoStage>& stages) {
  Json list = Json::array();
  for (const DemoStage& s : stages) {
    Json entry = Json::object({{"name", Json::string(s.name)}});
    each_number(s, [&](const char* name, auto value) { entry.set(name, Json::number(value)); });
    list.push(std::move(entry));
  }
  write_file_atomic(path, list.dump(1));
}

std::vector<DemoStage> load_demo_stages(const std::string& path) {
  std::vector<DemoStage> stages;
  if (!file_exists(path)) return stages;
  const Json list = Json::parse(read_file(path), path);
  for (const Json& entry : list.items()) {
    DemoStage& s = stages.emplace_back();
    s.name = entry.at("name").as_string();
    each_number(s, [&](const char* name, auto& value) {
      if constexpr (std::is_same_v<decltype(value), double&>)
        value = entry.at(name).as_double();
      else
        value = entry.at(name).as_int();
    });
  }
  return stages;
}

std::string demo_table_text(const DemoTable& table, const ModelConfig& config) {
  std::string out = fmt::format("{:<12} {:>6} {:>9} {:>8} {:>18} {:>20} {:>8}\n", "stage", "steps",
                                "tokens", "seconds", "validation loss", "indexer KL", "mass");
  for (const DemoStage& s : table.stages)
    out +=
        fmt::format("{:<12} {:>6} {:>9} {:>8.1f} {:>8.4f} -> {:<7.4f} {:>8.4f} -> {:<8.4f} {:>7}\n",
                    s.name, s.steps, s.tokens, s.seconds, s.loss_before, s.loss_after, s.kl_before,
                    s.kl_after, percent(s.mass));
  out += fmt::format("(mass: share of the attention that the {} best-scored keys hold)\n\n",
                     config.index_topk);
  out += fmt::format("{:<16} {:>9} {:>16} {:>16} {:>16} {:>12}\n", "held-out", "problems", "direct",
                     "thinking", "thinking, dense", "tokens each");
  const auto row = [&](const FamilyScore& thinking, const FamilyScore& direct,
                       const FamilyScore& dense) {
    out += fmt::format("{:<16} {:>9} {:>16} {:>16} {:>16} {:>12.0f}\n", thinking.family,
                       thinking.num_problems, percent(direct.accuracy()),
                       percent(thinking.accuracy()), percent(dense.accuracy()),
                       static_cast<double>(thinking.num_tokens) /
                           static_cast<double>(std::max<int64_t>(thinking.num_problems, 1)));
  };
  for (const FamilyScore& f : table.thinking.families) {
    const FamilyScore* direct = table.direct.find(f.family);
    const FamilyScore* dense = table.thinking_dense.find(f.family);
    row(f, direct ? *direct : FamilyScore{}, dense ? *dense : FamilyScore{});
  }
  row(table.thinking.all, table.direct.all, table.thinking_dense.all);
  out += fmt::format("sparse answers attend to {} of the keys they could see\n\n",
                     percent(table.thinking.keys_share));
  for (const ProblemAnswer* a : samples_of(table.thinking)) out += sample_text(*a) + "\n";
  return out;
}

std::string demo_rl_text(const RunData& run) {
  const auto series = [&](std::string_view name) {
    const auto s = std::ranges::find(run.series, name, &RunSeries::name);
    return s == run.series.end() ? std::vector<double>() : s->value;
  };
  const std::vector<double> rewards = series("reward/mean"), mismatch = series("mismatch/kl");
  if (rewards.empty()) return "";
  const size_t n = rewards.size(), few = std::min<size_t>(n, 5);
  const auto mean = [&](const std::vector<double>& v, size_t first) {
    double sum = 0;
    for (size_t i = first; i < first + few; ++i) sum += v[i];
    return sum / static_cast<double>(few);
  };
  std::string out =
      fmt::format("\n{:<34} {:>10} {:>10}\n", fmt::format("reinforcement learning, {} steps", n),
                  "before", "after");
  const auto row = [&](const char* what, const char* name, bool share) {
    const std::vector<double> v = series(name);
    if (v.empty()) return;
    const auto text = [&](double x) { return share ? percent(x) : fmt::format("{:.1f}", x); };
    out += fmt::format("{:<34} {:>10} {:>10}\n", what, text(v.front()), text(v.back()));
  };
  row("held-out accuracy", "eval/accuracy", true);
  row("answers that think", "eval/thinking", true);
  row("tokens of an answer", "eval_length", false);
  out += fmt::format("{:<34} {:>10.3f} {:>10.3f}\n", fmt::format("reward, mean of {} steps", few),
                     mean(rewards, 0), mean(rewards, n - few));
  if (!mismatch.empty())
    out += fmt::format("mismatch of trainer and rollouts, largest of all steps: {:g}\n",
                       *std::ranges::max_element(mismatch));
  return out;
}

void log_demo_table(const DemoTable& table, int64_t step, RunLog& log) {
  for (const DemoStage& s : table.stages) {
    log.cell(step, "Stages in figures", s.name, "tokens", std::to_string(s.tokens));
    log.cell(step, "Stages in figures", s.name, "seconds", fmt::format("{:.1f}", s.seconds));
    log.cell(step, "Stages in figures", s.name, "validation loss",
             fmt::format("{:.4f} to {:.4f}", s.loss_before, s.loss_after));
    log.cell(step, "Stages in figures", s.name, "indexer KL",
             fmt::format("{:.4f} to {:.4f}", s.kl_before, s.kl_after));
    log.cell(step, "Stages in figures", s.name, "attention mass of the selected", percent(s.mass));
  }
  const auto column = [&](const char* name, const ProblemScores& scores) {
    for (const FamilyScore& f : scores.families)
      log.cell(step, "Held-out accuracy", f.family, name, percent(f.accuracy()));
    log.cell(step, "Held-out accuracy", "all", name, percent(scores.all.accuracy()));
  };
  column("direct", table.direct);
  column("thinking", table.thinking);
  column("thinking, dense", table.thinking_dense);
  for (const ProblemAnswer* a : samples_of(table.thinking))
    log.text(step, "sample", sample_text(*a));
}

}  // namespace fathom
