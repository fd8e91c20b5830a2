// fathom doctor: the machine, the build, the kernels that will run, whether the sandbox works, and
// every environment variable that fathom honours.
#include <fmt/format.h>

#include <string>

#include "fathom/base/env.h"
#include "fathom/cli/args.h"
#include "fathom/cli/machine.h"
#include "fathom/kernels/cpu/simd/target.h"
#include "fathom/kernels/kernels.h"
#include "fathom/task/sandbox/sandbox.h"

namespace fathom {
namespace {

void row(const char* name, const std::string& value) { fmt::print("  {:<16} {}\n", name, value); }

std::string huge_page_advice(const std::string& setting) {
  if (setting == "never") {
    return setting +
           " (slower; as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled)";
  }
  return setting;
}

void print_machine(const Machine& m) {
  fmt::print("machine\n");
  row("cpu", m.cpu);
  row("instructions",
      m.isa.empty() ? "none that the kernels know" : fmt::format("{}", fmt::join(m.isa, " ")));
  row("cores", fmt::format("{} usable", m.cores));
  row("memory",
      fmt::format("{}, {} available", human_bytes(m.memory_bytes), human_bytes(m.available_bytes)));
  row("huge pages", huge_page_advice(m.huge_pages));
  row("gpus", m.gpus.empty() ? "none found" : fmt::format("{}", fmt::join(m.gpus, "; ")));
  row("system", m.system);
}

void print_kernels() {
  fmt::print("\nkernels\n");
  const bool reference = env_value("FATHOM_ISA") == "ref";
  row("backend", fmt::format("{}", reference ? cpu_ref().name : cpu_simd().name));
  if (!reference)
    row("instructions",
        fmt::format("{} (of {})", simd_target_name(), fmt::join(simd_target_names(), " ")));
  const bool split = !reference && cpu_simd().has_split_products();
  row("gradients", split ? "split products on the matrix unit" : "f32 products");
}

void print_build() {
  fmt::print("\nbuild\n");
  row("fathom", fmt::format("{} ({})", FATHOM_VERSION, FATHOM_BUILD));
  row("compiler", __VERSION__);
  row("libraries", FATHOM_LIBRARIES);
}

// Whether programs that a model has written can be run here, tried out.
void print_sandbox() {
  fmt::print("\nsandbox\n");
  const Result<SandboxInfo> info = Sandbox::probe();
  row("state", info ? "works" : "does not work here; programs of models are not run");
  if (info) {
    row("isolation", info->bubblewrap + ", system call filter");
    row("identity", info->identity);
    row("start", fmt::format("{:.0f} ms", info->start_s * 1e3));
  } else {
    row("reason", info.error().message());
    row("what to do", info.error().hint());
  }
}

void print_environment() {
  fmt::print("\nenvironment (for debugging; options belong on the command line)\n");
  for (const EnvVar& v : env_vars()) {
    const std::string value = env_value(v.name);
    fmt::print("  {:<16} {}\n  {:<16}   {}\n", v.name, value.empty() ? "(not set)" : value, "",
               v.doc);
  }
}

}  // namespace

int cmd_doctor(Args args) {
  CommandLine line("doctor", "show what this machine offers and what fathom will use of it");
  if (!line.parse(args)) return kExitOk;
  print_machine(inspect_machine());
  print_kernels();
  print_sandbox();
  print_build();
  print_environment();
  return kExitOk;
}

}  // namespace fathom
