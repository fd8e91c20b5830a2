// Helpers of the kernel tests: aligned memory, random data, bit comparison, every instruction set.
#pragma once

#include "fathom/kernels/cpu/simd/targets.h"
#include "hwy/targets.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "fathom/base/rng.h"

namespace fathom::testing {

class Aligned {
 public:
  explicit Aligned(size_t bytes) : data_(::operator new (bytes + 64, std::align_val_t{64})) {}
  ~Aligned() { ::operator delete (data_, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
};

// Values in [-1, 1) with full mantissas, so that any other order of summation shows.
inline std::vector<float> random_floats(int64_t count, uint64_t seed) {
  std::vector<float> v(static_cast<size_t>(count));
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (float& x : v) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
  return v;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Runs fn under each instruction set that the kernels are compiled for and this machine has.
template <class F>
void for_each_target(const F& fn) {
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  for (int64_t bits = all; bits != 0; bits &= bits - 1) {
    hwy::SetSupportedTargetsForTest(bits & -bits);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    fn();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace fathom::testing
