// What row-exact kernels cost: each beside variants of the same arithmetic in a looser order
// (bench_loose.h), measured in turn. Prints nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/kernels/gemm.h"
#include "fathom/kernels/kernels.h"

namespace fathom {

// A variant of a kernel, measured against the exact one.
struct LooseResult {
  std::string name;
  double best_s = 0;  // the fastest burst of calls, per call: other work on the machine only adds
  double cost = 0;    // fastest exact / fastest loose - 1: negative, exact wins
  double error = 0;   // largest difference of the outputs, relative to the largest output
  bool same_bits = false;
};

struct ExactnessResult {
  double best_s = 0;  // of the exact kernels
  double spread = 0;  // of their bursts: (90th - 10th percentile) / median
  std::vector<LooseResult> loose;

  const LooseResult& fastest() const;
};

struct ProductShape {
  int64_t n = 0, k = 0;
  int64_t count = 1;  // so many matrices of this shape, each used once in a call
};

struct AttentionShape {
  int64_t heads = 0, latent = 0, rope = 0, layers = 1;
};

// Products of m rows with all matrices, one after the other, then attention of one token (m = 1) to
// `keys` keys in each layer, if keys > 0. About `seconds` of measuring.
struct ExactnessCase {
  PackedType type = PackedType::kF32;
  int64_t m = 1;
  std::vector<ProductShape> products;
  AttentionShape attention;
  int64_t keys = 0;
};
ExactnessResult measure_exactness(const Kernels& kernels, const Exec& exec, const ExactnessCase& c,
                                  double seconds);

}  // namespace fathom
