// fathom train RECIPE: the stages of a recipe, with a progress line, metrics and checkpoints.
#include <fmt/core.h>

#include <filesystem>
#include <memory>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/command.h"
#include "fathom/cli/math_worker.h"
#include "fathom/cli/train_progress.h"
#include "fathom/comm/launch.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/tokenizer.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

struct TrainOptions {
  std::string recipe, run, tokenizer;
  bool resume = false;
  int64_t threads = 0;
  double rank_timeout = 1800;
};

// The run's own copy, for rl stages and for whoever reads the run.
void keep_tokenizer(const std::string& path, const std::string& run) {
  for (const std::string& name : list_folder(run))  // of a run that was killed while it wrote
    if (name.starts_with("tokenizer.json.tmp")) std::filesystem::remove(run + "/" + name);
  write_file_atomic(run + "/tokenizer.json", read_file(path));
}

void train(const TrainOptions& options, const Recipe& recipe, Comm& comm) {
  BatchTokens special;
  if (!options.tokenizer.empty()) special = batch_tokens(Tokenizer::load(options.tokenizer));
  Runtime runtime(Precision::kF32, options.threads);
  std::vector<std::string> notes;
  Trainer trainer(runtime.ctx(), recipe, options.run, options.resume, special, &notes, &comm);
  for (const std::string& note : notes) fmt::print(stderr, "note: {}\n", note);
  if (!options.tokenizer.empty() && comm.is_first()) keep_tokenizer(options.tokenizer, options.run);
  comm.barrier();  // the others read what the first has written
  if (!comm.is_first()) {
    TrainObserver quiet;
    return trainer.run(quiet);
  }
  ProgressObserver observer(options.run, options.tokenizer);
  trainer.run(observer);
  fmt::print("{}: {} steps, {} tokens, {}; `fathom report {}` shows the curves\n", options.run,
             trainer.state().global_step, trainer.state().tokens,
             human_duration(trainer.state().seconds), options.run);
}

}  // namespace

int cmd_train(Args args) {
  TrainOptions options;
  CommandLine line("train", "train a model through the stages of a recipe");
  line.positional("RECIPE", &options.recipe, "TOML file with [model] and [[stage]] tables");
  line.options().add(
      "run", &options.run,
      "folder for metrics, checkpoints and models; default: runs/NAME of the recipe");
  line.options().add("tokenizer", &options.tokenizer,
                     "tokenizer.json: for fill-in-the-middle, for rl stages, and to be copied into "
                     "the run and beside its models");
  line.options().add("resume", &options.resume,
                     "go on from the newest complete checkpoint of the run");
  line.options().add("threads", &options.threads, "threads; 0: all cores");
  line.options().add("rank-timeout", &options.rank_timeout,
                     "with mpirun or srun: seconds that a rank waits for another; 0: for ever");
  line.example("fathom train recipes/nano.toml --run runs/nano");
  line.example("mpirun -n 4 fathom train recipes/nano.toml --run runs/nano");
  if (!line.parse(args)) return kExitOk;
  Recipe recipe = read_recipe(options.recipe, rl_stage_kinds());
  use_own_math_worker(recipe);
  if (options.run.empty()) {
    const size_t slash = options.recipe.rfind('/') + 1;
    options.run = "runs/" + options.recipe.substr(slash, options.recipe.rfind('.') - slash);
  }
  const std::unique_ptr<Comm> comm = open_comm(options.rank_timeout);
  try {
    train(options, recipe, *comm);
  } catch (const std::exception&) {
    const int code = report_error();
    comm->abandon(code);  // the other ranks wait for this one
    return code;
  }
  return kExitOk;
}

}  // namespace fathom
