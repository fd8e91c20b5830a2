// Looks at every byte of a checkpoint folder and names each defect, where opening it would stop at
// the first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/work_progress.h"

namespace fathom {

class ThreadPool;

struct VerifyReport {
  struct File {
    std::string name;
    int64_t size_bytes = 0;
    std::string sha256;  // empty when not asked for
  };
  std::vector<File> files;
  std::vector<std::string> defects;  // what keeps the checkpoint from being used, or makes it wrong
  std::vector<std::string> remarks;  // what is only unusual: extra tensors, files out of the index
  int64_t num_tensors = 0, num_elements = 0;
};

// Config, index and files belong together; every tensor of the config is there with its sizes and a
// type that can be used; no element is NaN or infinite; scales are positive. `progress` may be
// null. Throws Error only when the folder does not exist.
VerifyReport verify_checkpoint(const std::string& folder, bool checksums, ThreadPool& pool,
                               WorkProgress* progress);

// Compares with lines "HASH  NAME" as sha256sum writes them (other lines are passed over); a file
// that only one side has is a difference too. Throws Error when there is no such line.
std::vector<std::string> compare_checksums(const VerifyReport& report, const std::string& lines);

}  // namespace fathom
