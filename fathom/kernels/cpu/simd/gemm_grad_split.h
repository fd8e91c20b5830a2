// Weight gradients in split products (gemm.h), behind gemm_weight_grad_grouped().
#pragma once

#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom::simd {

// Needs has_split_products().
void split_weight_grad_grouped(const GroupedWeightGradParams& p, ThreadPool& pool);

}  // namespace fathom::simd
