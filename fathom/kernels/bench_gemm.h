// Measurements of the matrix products against this machine's own peak: cases, and how one is run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/kernels/bench_loop.h"
#include "fathom/kernels/gemm.h"

namespace fathom {

class ThreadPool;

enum class BenchKernel : uint8_t { kGemm, kGrouped, kWeightGrad, kPack };

struct BenchCase {
  BenchKernel kernel = BenchKernel::kGemm;
  PackedType type = PackedType::kF32;
  int64_t m = 0, n = 0, k = 0, groups = 1;
  GradProducts products = GradProducts::kF32;
  bool memory_bound = false;  // judged by the read bandwidth instead of the FMA peak

  std::string name() const;   // e.g. "gemm_e4m3"
  std::string shape() const;  // e.g. "M=1 N=4096 K=4096"
};

// The standard shapes: M from 1 to 4096, training shapes, and M = 1 on weights larger than any
// cache.
std::vector<BenchCase> gemm_bench_cases();

struct GemmBenchResult {
  BenchResult time;    // rate counts flop, or bytes of weights when memory_bound
  bool exact = false;  // sampled outputs equal the scalar rule bit for bit
};

// Alternates the kernel with a measurement of the peak for about `seconds`.
GemmBenchResult run_gemm_bench(const BenchCase& c, ThreadPool& pool, double seconds);

}  // namespace fathom
