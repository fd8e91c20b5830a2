// The rule of split products (gemm.h) in plain loops.
#pragma once

#include <cstdint>

namespace fathom::ref {

// sum over i < k of a[i * a_step] * b[i * b_step]: the bits of one accumulator of split products.
float split_dot(const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t k);

}  // namespace fathom::ref
