// fathom sweep SWEEP.toml: many runs of one recipe that differ in what is compared, and their page.
#include <fmt/core.h>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/progress.h"
#include "fathom/cli/sweep_page.h"

namespace fathom {

int cmd_sweep(Args args) {
  std::string file, folder, tokenizer;
  std::vector<std::string> only;
  int64_t jobs = 1;
  bool tables = false;
  CommandLine line("sweep", "compare arms of a recipe over regimes, learning rates and seeds");
  line.positional("SWEEP", &file, "TOML file of studies; docs/formats.md");
  OptionSet& o = line.options();
  o.add("run", &folder,
        "folder of the results; default: runs/NAME of the file. What is finished "
        "there is not run again");
  o.add("tokenizer", &tokenizer, "tokenizer.json of the model that the recipe begins with");
  o.add("only", &only, "names of studies; empty: all");
  o.add("jobs", &jobs, "processes of one thread each; 0: only the page, from what is finished");
  o.add("tables", &tables, "print the tables as Markdown");
  line.example("fathom sweep recipes/ablation.toml --tokenizer runs/r1_zero/tokenizer.json");
  if (!line.parse(args)) return kExitOk;
  if (jobs < 0) throw UsageError(fmt::format("--jobs: expected 0 or more, found {}", jobs));
  if (jobs > 0 && tokenizer.empty())
    throw UsageError("--tokenizer: expected the file that belongs to the model, found nothing");
  if (folder.empty()) {
    const size_t slash = file.rfind('/') + 1;
    folder = "runs/" + file.substr(slash, file.rfind('.') - slash);
  }
  const Sweep sweep = read_sweep(file, only);
  if (jobs > 0) run_sweep(sweep, folder, tokenizer, jobs);
  const SweepResults results(sweep, folder);
  const std::string page = folder + "/report.html";
  write_file_atomic(page, sweep_page(results));
  if (tables) fmt::print("{}\n", sweep_markdown(results));
  fmt::print("{}: {} of {} runs, {} of processor time\n", page, results.num_runs(),
             sweep.cells.size(), human_duration(results.cpu_s()));
  return kExitOk;
}

}  // namespace fathom
