#include "fathom/kernels/cpu/simd/target.h"

#include <fmt/format.h>

#include "fathom/base/error.h"
#include "fathom/kernels/cpu/simd/targets.h"
// After targets.h, which says what is compiled.
#include <hwy/highway.h>

namespace fathom {
namespace {

// Highway gives better targets lower bits.
std::vector<int64_t> usable_bits() {
  const int64_t supported = hwy::SupportedTargets();
  hwy::GetChosenTarget().Update(
      supported);  // in 1.0.3 SupportedTargets() leaves disabled ones chosen
  std::vector<int64_t> out;
  for (int64_t rest = supported & HWY_TARGETS; rest != 0; rest &= rest - 1)
    out.push_back(rest & -rest);
  return out;
}

}  // namespace

std::vector<std::string> simd_target_names() {
  std::vector<std::string> out;
  for (const int64_t bit : usable_bits()) out.emplace_back(hwy::TargetName(bit));
  return out;
}

void limit_simd_target(std::string_view name) {
  for (const int64_t bit : usable_bits()) {
    if (hwy::TargetName(bit) != name) continue;
    hwy::DisableTargets(bit - 1);
    return;
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("expected an instruction set of this machine, found \"{}\"", name),
              fmt::format("one of: {}", fmt::join(simd_target_names(), " ")));
}

}  // namespace fathom
