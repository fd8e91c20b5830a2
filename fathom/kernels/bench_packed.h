// Weights packed for a measurement, with their memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fathom/kernels/cpu/simd/peak.h"
#include "fathom/kernels/gemm.h"

namespace fathom {

class PackedWeights {
 public:
  // w: [n][k] f32 with row stride ld; type kF32, kBF16, kQ8 or kQ4.
  PackedWeights(PackedType type, const float* w, int64_t ld, int64_t n, int64_t k,
                ThreadPool& pool);
  const PackedB& packed() const { return packed_; }

 private:
  std::unique_ptr<HugeBuffer> memory_;
  PackedB packed_;
};

}  // namespace fathom
