// The command table. To add a command: write cmd_<name>.cpp, declare it here and give it a row.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string_view>
#include <vector>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/base/options.h"
#include "fathom/cli/args.h"
#include "fathom/cli/command.h"
#include "fathom/kernels/cpu/simd/target.h"

namespace fathom {

int cmd_bench(Args args);
int cmd_chat(Args args);
int cmd_check_answer(Args args);
int cmd_check_code(Args args);
int cmd_data(Args args);
int cmd_demo(Args args);
int cmd_diff(Args args);
int cmd_doctor(Args args);
int cmd_generate(Args args);
int cmd_golden(Args args);
int cmd_inspect(Args args);
int cmd_quantize(Args args);
int cmd_report(Args args);
int cmd_rollouts(Args args);
int cmd_solve(Args args);
int cmd_stabilisers(Args args);
int cmd_sweep(Args args);
int cmd_synth_checkpoint(Args args);
int cmd_tokenize(Args args);
int cmd_train(Args args);
int cmd_verify(Args args);
int cmd_verify_worker(Args args);

namespace {

constexpr Command kCommands[] = {
    {"bench", "measure kernels and training against this machine's own limits", cmd_bench},
    {"chat", "talk with a model of a checkpoint folder", cmd_chat},
    {"check-answer", "say whether a mathematical answer equals the known one", cmd_check_answer},
    {"check-code", "run a program against tests in the sandbox", cmd_check_code},
    {"data", "prepare training data: corpora, tokenizer, token shards", cmd_data},
    {"demo", "train a small V3.2-class model from nothing and let it answer", cmd_demo},
    {"diff", "show the first tensor in which two dumps or weight files differ", cmd_diff},
    {"doctor", "show what this machine offers and what fathom will use of it", cmd_doctor},
    {"generate", "let a model of a checkpoint folder write", cmd_generate},
    {"golden", "compare this build with the expected values in folders", cmd_golden},
    {"inspect", "show what a model is, what it stores and what a token costs", cmd_inspect},
    {"quantize", "write a checkpoint with its weights in integer codes", cmd_quantize},
    {"report", "write a training run as one self-contained HTML page", cmd_report},
    {"rollouts", "read the answers that reinforcement learning sampled, or replay them",
     cmd_rollouts},
    {"solve", "let a model answer held-out problems and count what is right", cmd_solve},
    {"stabilisers", "show what the stabilisers of reinforcement learning control exactly",
     cmd_stabilisers},
    {"sweep", "compare arms of a recipe over regimes, learning rates and seeds", cmd_sweep},
    {"synth-checkpoint", "write a checkpoint of any shape with random weights",
     cmd_synth_checkpoint},
    {"tokenize", "cut a text into the tokens of a model, and join them again", cmd_tokenize},
    {"train", "train a model through the stages of a recipe", cmd_train},
    {"verify", "check every byte of a checkpoint folder and name each defect", cmd_verify},
    {"verify-worker", nullptr, cmd_verify_worker},  // started by fathom itself
};
static_assert(std::ranges::is_sorted(kCommands, {},
                                     [](const Command& c) { return std::string_view(c.name); }));

void print_help() {
  fmt::print(
      "fathom {}: train, align, evaluate and serve DeepSeek-V3.2-class models.\n\n"
      "usage: fathom COMMAND [ARGUMENTS] [--options]\n\ncommands:\n",
      FATHOM_VERSION);
  for (const Command& c : kCommands)
    if (c.summary) fmt::print("  {:<17} {}\n", c.name, c.summary);
  fmt::print("\n`fathom COMMAND --help` lists the options of a command.\n");
}

int run_command(Args args) {
  if (args.empty()) throw UsageError("expected a command, found none", "run `fathom --help`");
  const std::string& name = args[0];
  if (name == "--help" || name == "-h" || name == "help") {
    print_help();
    return kExitOk;
  }
  if (name == "--version") {
    fmt::print("fathom {}\n", FATHOM_VERSION);
    return kExitOk;
  }
  const auto found = std::ranges::find(kCommands, name, &Command::name);
  if (found != std::end(kCommands)) {
    const std::string isa = env_value("FATHOM_ISA");
    if (!isa.empty() && isa != "ref") limit_simd_target(isa);
    return found->run(args.subspan(1));
  }
  std::vector<std::string> names;
  for (const Command& c : kCommands)
    if (c.summary) names.emplace_back(c.name);
  const std::string near = nearest_name(name, names);
  throw UsageError(
      fmt::format("expected a command, found \"{}\"", name),
      near.empty() ? "run `fathom --help`" : fmt::format("did you mean `fathom {}`?", near));
}

void print_error(const Error& e) {
  std::fflush(stdout);
  fmt::print(stderr, "fathom: error: {}{}{}\n", e.message(), e.hint().empty() ? "" : "; ",
             e.hint());
}

}  // namespace

int run_part(const char* command, const char* summary, std::span<const Command> parts, Args args) {
  const std::string help = fmt::format("run `fathom {} --help`", command);
  if (args.empty())
    throw UsageError(fmt::format("{}: expected one of its parts, found nothing", command), help);
  if (args[0] == "--help" || args[0] == "-h") {
    fmt::print("fathom {0}: {1}\n\nusage: fathom {0} PART [--options]\n\nparts:\n", command,
               summary);
    for (const Command& p : parts) fmt::print("  {:<12} {}\n", p.name, p.summary);
    return kExitOk;
  }
  std::vector<std::string> names;
  for (const Command& p : parts) {
    if (args[0] == p.name) return p.run(args.subspan(1));
    names.emplace_back(p.name);
  }
  const std::string near = nearest_name(args[0], names);
  throw UsageError(
      fmt::format("{}: expected one of its parts, found \"{}\"", command, args[0]),
      near.empty() ? help : fmt::format("did you mean `fathom {} {}`?", command, near));
}

std::span<const Command> commands() { return kCommands; }

int report_error() {
  try {
    throw;
  } catch (const UsageError& e) {
    print_error(e);
    return kExitUsage;
  } catch (const Error& e) {
    print_error(e);
  } catch (const std::bad_alloc&) {
    print_error(Error(Code::kExhausted, "memory ran out", "use a smaller batch, context or model"));
  } catch (const std::exception& e) {
    print_error(Error(Code::kInternal, e.what()));
  }
  return kExitFailed;
}

int run_fathom(Args args) {
  try {
    const int code = run_command(args);
    if (std::fflush(stdout) != 0 && code == kExitOk) {
      throw Error(Code::kExhausted, "standard output could not be written", "is the disk full?");
    }
    return code;
  } catch (const std::exception&) {
    return report_error();
  }
}

}  // namespace fathom
