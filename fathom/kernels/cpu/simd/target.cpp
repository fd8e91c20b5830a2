#include "fathom/kernels/cpu/simd/target.h"

#include <fmt/format.h>

#include "fathom/base/error.h"
#include "fathom/kernels/cpu/simd/targets.h"
// After targets.h, which says what is compiled.
#include <hwy/highway.h>

namespace fathom {
namespace {

bool vnni_beside_avx2 = true;  // unless limit_simd_target says no

struct Set {
  std::string name;
  int64_t bit;
  bool vnni;
};

// Highway gives better targets lower bits.
std::vector<Set> usable_sets() {
  const int64_t supported = hwy::SupportedTargets();
  hwy::GetChosenTarget().Update(
      supported);  // in 1.0.3 SupportedTargets() leaves disabled ones chosen
  std::vector<Set> out;
  for (int64_t rest = supported & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    const int64_t bit = rest & -rest;
    const std::string name = hwy::TargetName(bit);
    if (bit == HWY_AVX2 && simd::avx_vnni()) out.push_back({name + "_VNNI", bit, true});
    out.push_back({name, bit, false});
  }
  return out;
}

}  // namespace

namespace simd {

bool avx_vnni() {
#if defined(__x86_64__) && !defined(__clang__)  // clang 16 does not know it by name
  return vnni_beside_avx2 && __builtin_cpu_supports("avxvnni");
#else
  return false;
#endif
}

}  // namespace simd

std::vector<std::string> simd_target_names() {
  std::vector<std::string> out;
  for (const Set& set : usable_sets()) out.push_back(set.name);
  return out;
}

std::string simd_target_name() { return usable_sets().front().name; }

void limit_simd_target(std::string_view name) {
  for (const Set& set : usable_sets()) {
    if (set.name != name) continue;
    hwy::DisableTargets(set.bit - 1);
    vnni_beside_avx2 = set.vnni;
    return;
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("expected an instruction set of this machine, found \"{}\"", name),
              fmt::format("one of: {}", fmt::join(simd_target_names(), " ")));
}

}  // namespace fathom
