// The instruction sets among which run-time dispatch may choose.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Names of the sets that this program was compiled for and this machine has, best first: those of
// Highway, and AVX2_VNNI for AVX2 with AVX-VNNI.
std::vector<std::string> simd_target_names();

// The one that run-time dispatch takes.
std::string simd_target_name();

// From here on dispatch takes none better than `name`. Call before the first kernel runs and before
// threads start: it changes Highway's choice for the whole process. Throws Error when `name` is not
// one of simd_target_names().
void limit_simd_target(std::string_view name);

}  // namespace fathom
