// fathom golden DIR|FILE...: this build against expected values.
#include <fmt/core.h>

#include <cmath>
#include <string>
#include <vector>

#include "fathom/cli/args.h"
#include "fathom/cli/golden.h"
#include "fathom/cli/golden_text.h"

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

// One folder of a model; true when all is as expected.
bool golden_folder(const std::string& folder, Precision precision, bool quiet) {
  const GoldenReport report = check_golden(folder, precision);
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
  return report.passed();
}

// One file of text cases.
bool golden_file(const std::string& file, const GoldenTextOptions& options) {
  const TextGoldenReport report = check_golden_text(file, options);
  for (const GoldenFailure& f : report.failures) fmt::print("  line {}: {}\n", f.line, f.message);
  const bool good = report.failures.empty() && report.num_cases > 0;
  fmt::print("{} {}: {} of {} cases pass\n", good ? "ok  " : "FAIL", file,
             report.num_cases - report.failures.size(), report.num_cases);
  return good;
}

}  // namespace

int cmd_golden(Args args) {
  std::vector<std::string> names;
  std::string precision = "f32";
  GoldenTextOptions text;
  bool quiet = false;
  CommandLine line("golden", "compare this build with the expected values in folders and files");
  line.positionals("DIR", &names,
                   "folder with config.json, weights and expected.safetensors, or FP8 components; "
                   "or a .jsonl file of tokenizer, encoding or completion cases",
                   1);
  OptionSet& o = line.options();
  o.add("precision", &precision, "f32: the vector kernels; f64: the reference kernels");
  o.add("quiet", &quiet, "print failures and one line per folder");
  o.add("tokenizer", &text.tokenizer, "tokenizer.json or its folder, for tokenizer cases");
  o.add("encoding_source", &text.encoding_source,
        "encoding_dsv32.py of a checkpoint, whose wording encodings are compared with");
  line.example("fathom golden tests/golden/v32-nano --precision f64");
  line.example(
      "fathom golden tests/golden/tokenizer/v3.jsonl --tokenizer DeepSeek-V3/tokenizer.json");
  if (!line.parse(args)) return kExitOk;
  if (precision != "f32" && precision != "f64")
    throw UsageError(fmt::format("--precision: expected f32 or f64, found \"{}\"", precision));
  bool all = true;
  for (const std::string& name : names) {
    const bool good =
        name.ends_with(".jsonl")
            ? golden_file(name, text)
            : golden_folder(name, precision == "f64" ? Precision::kF64 : Precision::kF32, quiet);
    all = good && all;
  }
  return all ? kExitOk : kExitFailed;
}

}  // namespace fathom
