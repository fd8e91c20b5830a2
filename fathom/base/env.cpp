#include "fathom/base/env.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr EnvVar kVars[] = {
    {"FATHOM_DUMP", "folder for named tensors of every forward pass (see `fathom diff`)"},
    {"FATHOM_ISA", "force a kernel set: ref, or one that `fathom doctor` lists"},
    {"FATHOM_THREADS", "threads of the pool; default: all cores"},
    {"PMIX_RANK", "set by mpirun and srun: `fathom train` is one of several ranks"},
    {"PMI_RANK", "likewise, with other launchers"},
};

}  // namespace

std::span<const EnvVar> env_vars() { return kVars; }

std::string env_value(const char* name) {
  FM_CHECK(std::ranges::any_of(kVars, [&](const EnvVar& v) { return !std::strcmp(v.name, name); }),
           "{} is not declared in base/env.cpp", name);
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace fathom
