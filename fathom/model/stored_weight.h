// A parameter as its file has it.
#pragma once

#include <cstdint>

#include "fathom/base/file.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// value[i, j] = tensor[i, j] * scale[i / block_rows, j / block_cols]; without scale, tensor.
struct StoredWeight {
  Tensor tensor;  // f32, f64, bf16, f16, or e4m3 with a scale; empty for an optional tensor that is
                  // absent
  Tensor scale;   // f32 [ceil(out / block_rows), ceil(in / block_cols)], only beside e4m3
  int64_t block_rows = 0, block_cols = 0;
  FileRange file;  // the same bytes as `tensor`, where they come from a file
};

// out (f32, sizes of the weight) = the weight, dequantised. Plain loops.
void dequantize(const StoredWeight& weight, const View& out);

// Kernels take it as it is: f32, bf16, or e4m3 with scales of 128 x 128. Else it has to be
// dequantised first.
bool packs_as_stored(const StoredWeight& weight);

}  // namespace fathom
