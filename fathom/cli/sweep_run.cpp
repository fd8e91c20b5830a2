#include "fathom/cli/sweep_run.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <span>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/math_worker.h"
#include "fathom/cli/progress.h"
#include "fathom/cli/runtime.h"
#include "fathom/rl/advantage.h"
#include "fathom/rl/rl_objective.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/rl/rollout_source.h"
#include "fathom/rl/rollout_store.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

std::string run_file(const std::string& folder, const SweepCell& cell) {
  return fmt::format("{}/runs/{}.json", folder, cell.key);
}

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// ---- the file of a run -------------------------------------------------------------------------

Json number_list(std::span<const double> values) {
  Json out = Json::array();
  for (const double v : values) out.push(Json::number(v));
  return out;
}

std::vector<double> numbers_of(const Json& list) {
  std::vector<double> out;
  for (const Json& v : list.items()) out.push_back(v.is_null() ? std::nan("") : v.as_double());
  return out;
}

bool is_kept(const std::string& series) {
  return !series.starts_with("time/") && !series.starts_with("speed/");
}

Json run_json(const SweepCell& cell, const SweepRun& run) {
  Json series = Json::object();
  for (const RunSeries& s : run.series) {
    Json steps = Json::array();
    for (const int64_t step : s.step) steps.push(Json::number(step));
    series.set(s.name, Json::object({{"step", std::move(steps)}, {"value", number_list(s.value)}}));
  }
  return Json::object({{"recipe", Json::string(cell.recipe)},
                       {"failed", Json::string(run.failed)},
                       {"tokens", Json::number(run.tokens)},
                       {"cpu_s", Json::number(run.cpu_s)},
                       {"series", std::move(series)},
                       {"negative_divergence", number_list(run.negative_divergence)},
                       {"other_divergence", number_list(run.other_divergence)}});
}

// ---- one run -----------------------------------------------------------------------------------

// What workers tell the process that shows the progress, in lines that a pipe takes whole.
class Reporter {
 public:
  explicit Reporter(int fd) : fd_(fd) {}
  void step(const std::string& key) const { write("step " + key); }
  void run(const std::string& key) const { write("run " + key); }
  void error(const std::string& message) const { write("error " + message); }

 private:
  void write(std::string line) const {
    constexpr size_t kMost = 2048;  // less than PIPE_BUF
    line.resize(std::min(line.size(), kMost));
    for (char& c : line)
      if (c == '\n') c = ' ';
    line += '\n';
    if (::write(fd_, line.data(), line.size()) < 0) _exit(1);  // nobody waits for the runs
  }
  int fd_;
};

class StepCounter final : public TrainObserver {
 public:
  StepCounter(const Reporter& reporter, const std::string& key) : reporter_(reporter), key_(key) {}
  void on_stage_begin(const StageRecipe&, const TrainState&) override { began_ = true; }
  void on_step(const StepReport&) override { reporter_.step(key_); }
  bool began() const { return began_; }

 private:
  const Reporter& reporter_;
  const std::string& key_;
  bool began_ = false;
};

void add_divergences(Ctx& ctx, const Model& model, const std::string& folder, SweepRun* run) {
  if (!RolloutStore::exists(folder)) return;
  const RolloutStore store(folder, RolloutStore::Mode::kRead);
  const std::vector<int64_t> steps = store.steps();
  if (steps.empty()) return;
  const std::vector<Rollout> rollouts = store.read_step(steps.back());
  std::vector<const Rollout*> counted;
  for (const Rollout& r : rollouts)
    if (can_learn_from(r)) counted.push_back(&r);
  const std::vector<double> advantages = batch_advantages(counted, PolicyOptions{});
  const Replay now =
      replay_logp(ctx, model, counted, {.selection = policy_selection(model.config)});
  for (size_t i = 0; i < counted.size(); ++i) {
    double sum = 0;
    for (size_t t = 0; t < now.logp[i].size(); ++t)
      if (counted[i]->sampled[t])
        sum += static_cast<double>(counted[i]->behaviour_logp[t]) - now.logp[i][t];
    (advantages[i] < 0 ? run->negative_divergence : run->other_divergence)
        .push_back(sum / static_cast<double>(counted[i]->num_sampled()));
  }
}

SweepRun make_run(const SweepCell& cell, const std::string& work, const std::string& tokenizer,
                  const Reporter& reporter) {
  SweepRun run;
  const double begin_s = cpu_seconds();
  Recipe recipe = parse_recipe(cell.recipe, cell.key, rl_stage_kinds());
  use_own_math_worker(recipe);
  fs::remove_all(work);
  Runtime runtime(Precision::kF32, 1);
  Ctx ctx = runtime.ctx();
  StepCounter counter(reporter, cell.key);
  Trainer trainer(ctx, std::move(recipe), work, false, BatchTokens{}, nullptr);
  write_file_atomic(work + "/tokenizer.json", read_file(tokenizer));
  try {
    trainer.run(counter);
    add_divergences(ctx, trainer.model(), work, &run);
  } catch (const Error& e) {
    if (!counter.began() || e.code() != Code::kDataLoss) throw;
    run.failed = e.message();  // a figure like any other
  }
  run.tokens = trainer.state().tokens;
  for (RunSeries& s : load_run(work).series)
    if (is_kept(s.name)) run.series.push_back(std::move(s));
  run.cpu_s = cpu_seconds() - begin_s;
  return run;
}

// ---- workers -----------------------------------------------------------------------------------

// Held by one process; the system lets go of it when the process ends, however it ends.
class FileLock {
 public:
  explicit FileLock(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    held_ = fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) == 0;
  }
  ~FileLock() {
    if (held_) unlink(path_.c_str());
    if (fd_ >= 0) close(fd_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool held() const { return held_; }

 private:
  std::string path_;
  int fd_;
  bool held_ = false;
};

// One pass over the cells; the number of runs made.
int64_t work_on(const Sweep& sweep, const std::string& folder, const std::string& tokenizer,
                const Reporter& reporter) {
  int64_t runs = 0;
  for (const SweepCell& cell : sweep.cells) {
    if (sweep_run_done(folder, cell)) continue;
    const std::string work = fmt::format("{}/open/{}", folder, cell.key);
    const FileLock lock(work + ".lock");
    if (!lock.held() || sweep_run_done(folder, cell)) continue;  // another process has it
    const SweepRun run = make_run(cell, work, tokenizer, reporter);
    write_file_atomic(run_file(folder, cell), run_json(cell, run).dump() + "\n");
    fs::remove_all(work);
    reporter.run(cell.key);
    ++runs;
  }
  return runs;
}

[[noreturn]] void worker_main(const Sweep& sweep, const std::string& folder,
                              const std::string& tokenizer, int fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const Reporter reporter(fd);
  int code = 1;
  try {
    // Again, for what another process had begun and did not finish.
    while (work_on(sweep, folder, tokenizer, reporter) > 0) continue;
    code = 0;
  } catch (const Error& e) {
    reporter.error(e.hint().empty() ? e.message() : e.message() + "; " + e.hint());
  } catch (const std::exception& e) {
    reporter.error(e.what());
  }
  _exit(code);
}

// Forked before this process has any thread.
std::vector<pid_t> start_workers(const Sweep& sweep, const std::string& folder,
                                 const std::string& tokenizer, int64_t jobs, int* reports) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    throw Error(Code::kExhausted, "sweep: no pipe could be made");
  std::fflush(nullptr);
  std::vector<pid_t> workers;
  for (int64_t i = 0; i < jobs; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      close(ends[0]);
      worker_main(sweep, folder, tokenizer, ends[1]);
    }
    if (pid > 0) workers.push_back(pid);
  }
  close(ends[1]);
  *reports = ends[0];
  if (workers.empty()) throw Error(Code::kExhausted, "sweep: no process could be started");
  return workers;
}

struct Watched {
  int64_t runs = 0;
  std::string error;  // the first one
};

// Draws until the last worker has closed its end.
Watched watch(FILE* reports, int64_t total_steps, int64_t open_runs) {
  Watched w;
  Progress progress("sweep", total_steps, "steps");
  int64_t steps = 0;
  std::string detail;
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), reports)) {
    std::string line = buffer.data();
    if (!line.empty() && line.back() == '\n') line.pop_back();
    const size_t blank = line.find(' ');
    const std::string kind = line.substr(0, blank), text = line.substr(blank + 1);
    if (kind == "error" && w.error.empty()) w.error = text;
    if (kind == "run") ++w.runs;
    if (kind == "step") ++steps;
    detail = fmt::format("{} of {} runs, {}", w.runs, open_runs, text);
    progress.update(steps, static_cast<double>(steps), detail);
  }
  return w;
}

}  // namespace

const RunSeries* SweepRun::find(const std::string& name) const {
  for (const RunSeries& s : series)
    if (s.name == name) return &s;
  return nullptr;
}

bool sweep_run_done(const std::string& folder, const SweepCell& cell) {
  const std::string path = run_file(folder, cell);
  return file_exists(path) &&
         Json::parse(read_file(path), path).at("recipe").as_string() == cell.recipe;
}

SweepRun read_sweep_run(const std::string& folder, const SweepCell& cell) {
  const std::string path = run_file(folder, cell);
  const Json json = Json::parse(read_file(path), path);
  SweepRun run{.failed = json.at("failed").as_string(),
               .tokens = json.at("tokens").as_int(),
               .cpu_s = json.at("cpu_s").as_double(),
               .negative_divergence = numbers_of(json.at("negative_divergence")),
               .other_divergence = numbers_of(json.at("other_divergence"))};
  for (const auto& [name, s] : json.at("series").members()) {
    RunSeries series{.name = name, .value = numbers_of(s.at("value"))};
    for (const Json& step : s.at("step").items()) series.step.push_back(step.as_int());
    if (series.step.size() != series.value.size())
      throw Error(Code::kDataLoss,
                  fmt::format("{}: series {}: expected as many values as steps, found {} and {}",
                              path, name, series.value.size(), series.step.size()),
                  "remove the file: the run is made again");
    run.series.push_back(std::move(series));
  }
  return run;
}

int64_t run_sweep(const Sweep& sweep, const std::string& folder, const std::string& tokenizer,
                  int64_t jobs) {
  make_folders(folder + "/runs");
  make_folders(folder + "/open");
  int64_t steps = 0, open_runs = 0;
  for (const SweepCell& cell : sweep.cells) {
    if (sweep_run_done(folder, cell)) continue;
    steps += cell.steps;
    ++open_runs;
  }
  if (open_runs == 0) return 0;
  int fd = -1;
  const std::vector<pid_t> workers =
      start_workers(sweep, folder, tokenizer, std::min(jobs, open_runs), &fd);
  FILE* reports = fdopen(fd, "r");
  FM_CHECK(reports != nullptr, "fdopen of a pipe failed");
  Watched w = watch(reports, steps, open_runs);
  std::fclose(reports);
  for (const pid_t pid : workers) {
    int status = 0;
    waitpid(pid, &status, 0);
    if (w.error.empty() && status != 0)
      w.error = fmt::format("a process of the sweep ended with status {}", status);
  }
  if (!w.error.empty())
    throw Error(Code::kInternal, w.error, "what is finished is kept; run the sweep again");
  return w.runs;
}

}  // namespace fathom
