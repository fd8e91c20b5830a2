// fathom verify DIR: every byte of a checkpoint folder, every defect by name.
#include <fmt/core.h>

#include <memory>
#include <string>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/byte_progress.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/runtime.h"
#include "fathom/model/verify_checkpoint.h"

namespace fathom {

int cmd_verify(Args args) {
  std::string folder, against;
  bool checksums = true;
  int64_t threads = 0, most = 50;
  CommandLine line("verify", "check every byte of a checkpoint folder and name each defect");
  line.positional("DIR", &folder, "checkpoint folder: config.json and safetensors");
  OptionSet& o = line.options();
  o.add("checksums", &checksums, "print a SHA-256 for each file, in the form of sha256sum");
  o.add("against", &against, "file of such lines to compare with");
  o.add("most", &most, "defects to print");
  o.add("threads", &threads, "threads; 0: all cores");
  line.example("fathom verify DIR > sums; fathom verify COPY --against sums");
  if (!line.parse(args)) return kExitOk;
  const std::string wanted = against.empty() ? "" : read_file(against);
  Runtime runtime(Precision::kF32, threads);
  VerifyReport report;
  {
    ByteProgress progress("verify");
    report = verify_checkpoint(folder, checksums || !against.empty(), runtime.pool, &progress);
  }
  if (!against.empty())
    for (std::string& difference : compare_checksums(report, wanted))
      report.defects.push_back(std::move(difference));
  int64_t size_bytes = 0;
  for (const VerifyReport::File& f : report.files) {
    size_bytes += f.size_bytes;
    if (!f.sha256.empty()) fmt::print("{}  {}\n", f.sha256, f.name);
  }
  const auto print = [&](const char* what, const std::vector<std::string>& lines) {
    int64_t n = 0;
    for (const std::string& text : lines) {
      if (++n > most) break;
      fmt::print("{}: {}\n", what, text);
    }
    if (n > most) fmt::print("{}: {} more\n", what, std::ssize(lines) - most);
  };
  print("remark", report.remarks);
  print("defect", report.defects);
  fmt::print("{} {}: {} files, {} tensors, {} elements, {}, {} defects\n",
             report.defects.empty() ? "ok  " : "FAIL", folder, report.files.size(),
             report.num_tensors, report.num_elements,
             human_bytes(static_cast<uint64_t>(size_bytes)), report.defects.size());
  return report.defects.empty() ? kExitOk : kExitFailed;
}

}  // namespace fathom
