// What this machine is, as far as speed depends on it. For `fathom doctor` and for the records of
// `fathom bench`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

struct Machine {
  std::string cpu;                // model name, "unknown" when the system does not say
  std::vector<std::string> isa;   // instruction sets that matter to the kernels, weakest first
  int cores = 0;                  // that this process may use
  uint64_t memory_bytes = 0;      // in total; the container's limit when that is lower
  uint64_t available_bytes = 0;   // without swapping
  std::string huge_pages;         // the transparent setting: always, madvise, never, or unknown
  std::vector<std::string> gpus;  // one line each
  std::string system;             // kernel name and release
};

Machine inspect_machine();

uint64_t resident_bytes();                // memory of this process that is in RAM; 0 when unknown
std::string human_bytes(uint64_t bytes);  // "23.4 GiB"

}  // namespace fathom
