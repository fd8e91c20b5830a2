// fathom bench WHAT: speed against this machine's own limits.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/cli/args.h"
#include "fathom/cli/bench_attention.h"
#include "fathom/cli/bench_exactness.h"
#include "fathom/cli/bench_infer.h"
#include "fathom/cli/bench_kernel.h"
#include "fathom/cli/bench_sandbox.h"
#include "fathom/cli/bench_step.h"
#include "fathom/cli/bench_tokenizer.h"

namespace fathom {
namespace {

int bench_attention_command(Args args) {
  BenchAttentionOptions options;
  CommandLine line("bench attention", "cost of a token against its position, dense and sparse");
  options.fields(line.options());
  if (!line.parse(args)) return kExitOk;
  return run_bench_attention(options);
}

int bench_exactness_command(Args args) {
  BenchExactnessOptions options;
  CommandLine line("bench exactness", "what it costs that bits depend on a row alone");
  options.fields(line.options());
  line.example("fathom bench exactness --filter token --depth 8192");
  if (!line.parse(args)) return kExitOk;
  return run_bench_exactness(options);
}

int bench_infer_command(Args args) {
  BenchInferOptions options;
  CommandLine line("bench infer", "tokens per second of a whole model, prefill and decode");
  line.positional(
      "MODEL", &options.model,
      "checkpoint folder; or a config.json or known shape (s15m, m120m, l1b), which gets "
      "random weights");
  options.fields(line.options());
  line.example("fathom bench infer m120m --types bf16 --threads 2 --depths 0,8192");
  line.example(
      "fathom bench infer m120m --types q8 --threads 2 --rounds 3 --peer \"llama-bench -m FILE -t "
      "{threads} -p {prefill} -n 32 -d {depth}\"");
  if (!line.parse(args)) return kExitOk;
  return run_bench_infer(options);
}

int bench_kernel_command(Args args) {
  BenchKernelOptions options;
  CommandLine line("bench kernel", "every kernel against FMA peak or read bandwidth");
  options.fields(line.options());
  line.example("fathom bench kernel --filter \"M=1 \" --threads 2");
  line.example("fathom bench kernel --filter attention");
  if (!line.parse(args)) return kExitOk;
  return run_bench_kernel(options);
}

int bench_sandbox_command(Args args) {
  BenchSandboxOptions options;
  CommandLine line("bench sandbox", "time to run programs in the sandbox, and to compile them");
  options.fields(line.options());
  if (!line.parse(args)) return kExitOk;
  return run_bench_sandbox(options);
}

int bench_step_command(Args args) {
  BenchStepOptions options;
  CommandLine line("bench step", "time a training step of a 12 M-parameter model");
  options.fields(line.options());
  if (!line.parse(args)) return kExitOk;
  return run_bench_step(options);
}

int bench_tokenizer_command(Args args) {
  BenchTokenizerOptions options;
  CommandLine line("bench tokenizer", "text that one core encodes in a second");
  line.positional("TOKENIZER", &options.tokenizer,
                  "tokenizer.json, tiktoken.model or their folder");
  options.fields(line.options());
  line.example("fathom bench tokenizer DeepSeek-V3/tokenizer.json");
  if (!line.parse(args)) return kExitOk;
  return run_bench_tokenizer(options);
}

constexpr Command kBenches[] = {
    {"attention", "cost of a token against its position, dense and sparse",
     bench_attention_command},
    {"exactness", "what it costs that bits depend on a row alone", bench_exactness_command},
    {"infer", "tokens per second of a whole model, prefill and decode", bench_infer_command},
    {"kernel", "every kernel against FMA peak or read bandwidth", bench_kernel_command},
    {"sandbox", "time to run programs in the sandbox, and to compile them", bench_sandbox_command},
    {"step", "a training step of a 12 M-parameter model", bench_step_command},
    {"tokenizer", "text that one core encodes in a second", bench_tokenizer_command},
};

}  // namespace

int cmd_bench(Args args) {
  std::vector<std::string> names = {"all"};
  for (const Command& b : kBenches) names.emplace_back(b.name);
  if (args.empty())
    throw UsageError("expected the name of a bench, found nothing", "run `fathom bench --help`");
  if (args[0] == "--help" || args[0] == "-h") {
    fmt::print(
        "fathom bench: measure against this machine's own limits\n\nusage: fathom bench WHAT "
        "[--options]\n\n");
    for (const Command& b : kBenches) fmt::print("  {:<12} {}\n", b.name, b.summary);
    fmt::print("  {:<12} each of them with its defaults, but tokenizer\n", "all");
    return kExitOk;
  }
  for (const Command& b : kBenches)
    if (args[0] == b.name) return b.run(args.subspan(1));
  if (args[0] == "all" && args.size() == 1) {
    int worst = kExitOk;
    for (const Command& b : kBenches)
      if (b.run != bench_tokenizer_command) worst = std::max(worst, b.run({}));
    return worst;
  }
  const std::string near = nearest_name(args[0], names);
  throw UsageError(fmt::format("expected the name of a bench, found \"{}\"", args[0]),
                   near.empty() ? "run `fathom bench --help`"
                                : fmt::format("did you mean `fathom bench {}`?", near));
}

}  // namespace fathom
