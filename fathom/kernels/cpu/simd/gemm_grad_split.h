// Weight gradients in split products (gemm.h), behind gemm_weight_grad_grouped().
#pragma once

#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom::simd {

// split_table() must not be null.
void split_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool);

}  // namespace fathom::simd
