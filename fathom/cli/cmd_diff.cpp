// fathom diff A B: the first tensor in which two dumps differ.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/tensor/probe.h"

namespace fathom {
namespace {

constexpr std::string_view kSuffix = ".safetensors";

std::vector<std::string> dumps_in(const std::string& folder) {
  std::vector<std::string> out;
  for (const std::string& name : list_folder(folder))
    if (name.ends_with(kSuffix)) out.push_back(name);
  if (out.empty())
    throw Error(Code::kNotFound, fmt::format("{}: expected *{} files, found none", folder, kSuffix),
                "run a command with FATHOM_DUMP=FOLDER");
  return out;
}

// Prints the first difference; true when there is none.
bool same_file(const std::string& a, const std::string& b, double tolerance) {
  const std::optional<TensorDifference> found = first_difference(a, b, tolerance);
  if (found) fmt::print("{} and {}: {}\n", a, b, found->describe());
  return !found;
}

bool same_folder(const std::string& a, const std::string& b, double tolerance) {
  const std::vector<std::string> names_a = dumps_in(a), names_b = dumps_in(b);
  for (const std::string& name : names_a) {
    if (!std::binary_search(names_b.begin(), names_b.end(), name)) {
      fmt::print("{} is absent in {}\n", name, b);
      return false;
    }
    if (!same_file(a + "/" + name, b + "/" + name, tolerance)) return false;
  }
  for (const std::string& name : names_b)
    if (!std::binary_search(names_a.begin(), names_a.end(), name)) {
      fmt::print("{} is absent in {}\n", name, a);
      return false;
    }
  fmt::print("{} and {}: {} files are the same\n", a, b, names_a.size());
  return true;
}

}  // namespace

int cmd_diff(Args args) {
  std::string a, b;
  double tolerance = 0;
  CommandLine line("diff", "show the first tensor in which two dumps or weight files differ");
  line.positional("A", &a, "a safetensors file, or a folder of them");
  line.positional("B", &b, "the same of another run");
  line.options().add("tolerance", &tolerance,
                     "largest |a - b| that counts as equal, relative to the tensor's largest |a|");
  line.example("FATHOM_DUMP=one fathom generate MODEL --prompt hello --temperature 0");
  line.example(
      "FATHOM_DUMP=two FATHOM_ISA=ref fathom generate MODEL --prompt hello --temperature 0");
  line.example("fathom diff one two --tolerance 1e-5");
  if (!line.parse(args)) return kExitOk;
  if (!(tolerance >= 0))
    throw UsageError(fmt::format("--tolerance: expected >= 0, found {}", tolerance));
  if (folder_exists(a) != folder_exists(b))
    throw Error(Code::kInvalidArgument,
                fmt::format("expected two files or two folders, found {} and {}", a, b));
  bool same = false;
  if (folder_exists(a)) {
    same = same_folder(a, b, tolerance);
  } else {
    same = same_file(a, b, tolerance);
    if (same) fmt::print("{} and {}: no difference\n", a, b);
  }
  return same ? kExitOk : kExitFailed;
}

}  // namespace fathom
