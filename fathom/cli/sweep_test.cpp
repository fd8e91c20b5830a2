#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/cli/sweep_page.h"
#include "fathom/cli/sweep_plan.h"
#include "fathom/cli/sweep_result.h"

namespace fathom {
namespace {

constexpr const char* kSweep = R"(
recipe = "recipes/ablation_run.toml"
learning_rates = [1e-3, 1e-4]
seeds = 2
set = { prompts = 2 }
[[study]]
name = "first"
regimes = [{ name = "mild" }, { name = "stressed", lag = 6, prompts = 3 }]
arms = [{ name = "off" }, { name = "on", opsm_delta = "0.1", against = "off" }]
[[study]]
name = "second"
seeds = 1
learning_rates = [0.5]
regimes = [{ name = "mild" }]
arms = [{ name = "only" }]
)";

// Removed with all that is in it.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fathom_sweep_XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Sweep parse(const std::string& text, const std::vector<std::string>& only = {}) {
  const Folder folder;
  const std::string path = folder.path() + "/sweep_test.toml";
  write_file_atomic(path, text);
  return read_sweep(path, only);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

SweepRun run_with(std::vector<double> accuracy, double divergence = 0.1, double entropy = 0.2) {
  SweepRun run;
  run.series.push_back({.name = "eval/accuracy", .value = std::move(accuracy)});
  run.series.push_back({.name = "divergence/mean", .value = {0, divergence}});
  run.series.push_back({.name = "entropy/token", .value = {0.001, entropy}});
  return run;
}

TEST_CASE("a sweep has a run for each regime, rate, arm and seed, seed by seed") {
  const Sweep sweep = parse(kSweep);
  REQUIRE(sweep.cells.size() == 2 * 2 * 2 * 2 + 1);
  std::set<std::string> keys;
  for (const SweepCell& c : sweep.cells) keys.insert(c.key);
  CHECK(keys.size() == sweep.cells.size());
  CHECK(keys.contains("first.stressed.on.0.001.2"));
  for (size_t i = 1; i < sweep.cells.size(); ++i)
    CHECK(sweep.cells[i - 1].seed <= sweep.cells[i].seed);
  CHECK(sweep.studies[0].rates == std::vector<double>{1e-4, 1e-3});
  CHECK(parse(kSweep, {"second"}).cells.size() == 1);
}

TEST_CASE("the nearest table wins: arm over regime over study over sweep over recipe") {
  for (const SweepCell& c : parse(kSweep).cells) {
    const bool stressed = c.regime == "stressed";
    CHECK((c.recipe.find("lag = 6") != c.recipe.npos) == stressed);
    CHECK(c.recipe.find(stressed ? "prompts = 3" : "prompts = 2") != c.recipe.npos);
    CHECK((c.recipe.find("opsm_delta = '0.1'") != c.recipe.npos) == (c.arm == "on"));
    CHECK(c.recipe.find(fmt::format("\nseed = {}", c.seed)) != c.recipe.npos);
  }
}

TEST_CASE("mistakes in a sweep are errors that say where") {
  const auto message = [](const std::string& text, const std::vector<std::string>& only = {}) {
    try {
      parse(text, only);
    } catch (const Error& e) {
      return e.message() + "; " + e.hint();
    }
    return std::string("none");
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != text.npos;
  };
  CHECK(has(message(replaced(kSweep, "lag = 6", "leg = 6")), "first.stressed.off"));
  CHECK(has(message(replaced(kSweep, "against = \"off\"", "against = \"of\"")), "no arm"));
  CHECK(has(message(replaced(kSweep, "seeds = 1", "seeds = 0")), "seeds"));
  CHECK(has(message(replaced(kSweep, "[0.5]", "[0.5, 0.5]")), "learning_rates"));
  CHECK(has(message(replaced(kSweep, "\"second\"", "\"first\"")), "two studies"));
  CHECK(has(message(replaced(kSweep, "\"mild\" }, ", "\"a/b\" }, ")), "a/b"));
  CHECK(has(message(replaced(kSweep, "seeds = 1", "curve = []")), "curves"));
  CHECK(has(message(kSweep, {"third"}), "first, second"));
  CHECK(has(message("seeds = 1"), "study"));
  CHECK(has(message("seeds = "), "sweep_test.toml:1"));
}

TEST_CASE("bootstrap interval: around the mean, wider for wider values, a point for equal ones") {
  const Interval narrow = bootstrap_mean(std::vector<double>{0.49, 0.5, 0.51, 0.5, 0.5}),
                 wide = bootstrap_mean(std::vector<double>{0.3, 0.5, 0.7, 0.4, 0.6}),
                 equal = bootstrap_mean(std::vector<double>{0.25, 0.25});
  CHECK(wide.mean == doctest::Approx(0.5));
  // Standard deviation of the mean of five draws: 0.1414 / sqrt(5), times 1.96.
  CHECK(wide.low == doctest::Approx(0.5 - 0.124).epsilon(0.05));
  CHECK(wide.high == doctest::Approx(0.5 + 0.124).epsilon(0.05));
  CHECK(narrow.high - narrow.low < 0.2 * (wide.high - wide.low));
  CHECK(equal.low == 0.25);
  CHECK(equal.high == 0.25);
  CHECK(interval_text(bootstrap_mean({})) == "-");
}

TEST_CASE("a run has collapsed by the rules that the page states, and not otherwise") {
  CHECK(outcome_of(run_with({0.4, 0.3, 0.5, 0.6})).collapsed.empty());
  CHECK(outcome_of(run_with({0.4, 0.5, 0.3, 0.41})).collapsed.empty());
  CHECK(outcome_of(run_with({0.4, 0.5, 0.3, 0.39})).collapsed == "below the base");
  CHECK(!outcome_of(run_with({0.4, 0.5, 0.6, 0.7}, 1.01)).collapsed.empty());
  CHECK(!outcome_of(run_with({0.4, 0.5, 0.6, 0.7}, std::nan(""))).collapsed.empty());
  CHECK(!outcome_of(run_with({0.4, 0.5, 0.6, 0.7}, 0.1, 0.009)).collapsed.empty());
  SweepRun broken = run_with({0.4, 0.9, 0.9});
  broken.failed = "step 7: the loss is nan";
  CHECK(!outcome_of(broken).collapsed.empty());
  const Outcome good = outcome_of(run_with({0.4, 0.5, 0.3, 0.7}));
  CHECK(good.base == 0.4);
  CHECK(good.accuracy == 0.7);
}

TEST_CASE("a run's file whose curve lacks a value is refused") {
  const Folder folder;
  make_folders(folder.path() + "/runs");
  const SweepCell cell{.key = "cell"};
  const auto write = [&](const std::string& values) {
    write_file_atomic(folder.path() + "/runs/cell.json",
                      R"({"recipe": "", "failed": "", "tokens": 1, "cpu_s": 1, "series": {"a": )"
                      R"({"step": [1, 2], "value": )" +
                          values + R"(}}, "negative_divergence": [], "other_divergence": []})");
  };
  write("[0.5, null]");
  CHECK(read_sweep_run(folder.path(), cell).series.at(0).value.size() == 2);
  write("[0.5]");
  CHECK_THROWS_WITH_AS(read_sweep_run(folder.path(), cell), doctest::Contains("as many values"),
                       Error);
}

TEST_CASE("differences are paired: a seed that one arm lacks does not count") {
  RateResult a, b;
  a.outcomes = {{1, {.accuracy = 0.5}}, {2, {.accuracy = 0.9}}, {3, {.accuracy = 0.1}}};
  b.outcomes = {{1, {.accuracy = 0.4}}, {2, {.accuracy = 0.8}}};
  const Interval d = paired_difference(a, b);
  CHECK(d.count == 2);
  CHECK(d.mean == doctest::Approx(0.1));
  CHECK(d.high - d.low < 1e-9);
}

TEST_CASE("a page without finished runs is still a page") {
  const Sweep sweep = parse(kSweep);
  const SweepResults results(sweep, "no such folder");
  CHECK(results.num_runs() == 0);
  CHECK(sweep_page(results).find("0 of 17 runs") != std::string::npos);
  CHECK(sweep_markdown(results).find("| stressed | on | - | - |") != std::string::npos);
}

}  // namespace
}  // namespace fathom
