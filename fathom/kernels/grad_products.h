// Which products a backward pass uses; a forward pass always uses those of kF32.
#pragma once

#include <cstdint>

namespace fathom {

enum class GradProducts : uint8_t {
  kF32,    // chains of f32 multiply-adds (gemm.h): the same bits on every machine
  kSplit,  // three bf16 parts of every number on the matrix unit; needs cpu_simd() and AMX
};

}  // namespace fathom
