// fathom golden DIR...: this build against expected values.
#include <fmt/core.h>

#include <cmath>
#include <string>
#include <vector>

#include "fathom/cli/args.h"
#include "fathom/cli/golden.h"

namespace fathom {
namespace {

void print_row(const GoldenRow& r) {
  fmt::print("  {:<4} {:<58} error {:<10.3g} limit {:<8.3g}{}{}\n", r.passed() ? "ok" : "FAIL",
             r.name, r.error, r.limit, r.passed() || r.note.empty() ? "" : "  ",
             r.passed() ? "" : r.note);
}

// The largest share of its limit that any row used.
const GoldenRow* tightest(const GoldenReport& report) {
  const GoldenRow* worst = nullptr;
  for (const GoldenRow& r : report.rows)
    if (r.limit > 0 && (!worst || r.error / r.limit > worst->error / worst->limit)) worst = &r;
  return worst;
}

}  // namespace

int cmd_golden(Args args) {
  std::vector<std::string> folders;
  std::string precision = "f32";
  bool quiet = false;
  CommandLine line("golden", "compare this build with the expected values in folders");
  line.positionals("DIR", &folders,
                   "folder with config.json, weights and expected.safetensors, or FP8 components",
                   1);
  line.options().add("precision", &precision,
                     "f32: the vector kernels; f64: the reference kernels");
  line.options().add("quiet", &quiet, "print failures and one line per folder");
  line.example("fathom golden tests/golden/v32-nano --precision f64");
  if (!line.parse(args)) return kExitOk;
  if (precision != "f32" && precision != "f64")
    throw UsageError(fmt::format("--precision: expected f32 or f64, found \"{}\"", precision));
  bool all = true;
  for (const std::string& folder : folders) {
    const GoldenReport report =
        check_golden(folder, precision == "f64" ? Precision::kF64 : Precision::kF32);
    int failed = 0;
    if (!quiet) fmt::print("{}\n", folder);
    for (const GoldenRow& r : report.rows) {
      failed += !r.passed();
      if (!quiet || !r.passed()) print_row(r);
    }
    for (const std::string& name : report.not_compared) fmt::print("  not compared: {}\n", name);
    const GoldenRow* worst = tightest(report);
    fmt::print("{} {}: {} of {} rows pass{}\n", report.passed() ? "ok  " : "FAIL", folder,
               report.rows.size() - static_cast<size_t>(failed), report.rows.size(),
               worst ? fmt::format("; closest to its limit: {} at {:.3g} of {:.3g}", worst->name,
                                   worst->error, worst->limit)
                     : "");
    all = all && report.passed();
  }
  return all ? kExitOk : kExitFailed;
}

}  // namespace fathom
