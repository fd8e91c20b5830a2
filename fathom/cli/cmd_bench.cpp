// fathom bench WHAT: speed against this machine's own limits.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/cli/args.h"
#include "fathom/cli/bench_step.h"

namespace fathom {
namespace {

int bench_step_command(Args args) {
  BenchStepOptions options;
  CommandLine line("bench step", "time a training step of a 12 M-parameter model");
  options.fields(line.options());
  if (!line.parse(args)) return kExitOk;
  return run_bench_step(options);
}

constexpr Command kBenches[] = {
    {"step", "a training step of a 12 M-parameter model", bench_step_command},
};

}  // namespace

int cmd_bench(Args args) {
  if (!args.empty())
    for (const Command& b : kBenches)
      if (args[0] == b.name) return b.run(args.subspan(1));
  fmt::print("usage: fathom bench WHAT [--options]\n\n");
  for (const Command& b : kBenches) fmt::print("  {:<12} {}\n", b.name, b.summary);
  if (args.empty() || args[0] == "--help") return kExitOk;
  throw UsageError(fmt::format("expected one of the benches above, found \"{}\"", args[0]));
}

}  // namespace fathom
