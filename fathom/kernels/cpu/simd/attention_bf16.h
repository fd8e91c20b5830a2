// Attention over latents of bf16 on the matrix unit, where the machine has one for bf16. Keys are
// what they are, a query or a probability is the sum of three bf16 numbers, exactly: split products
// (gemm.h) with operands of which one has no middle and low parts. Their order of summation:
//   score    over ascending blocks of 32 numbers of a key
//   z        of a chunk: over ascending blocks of 32 keys
#pragma once

#include "fathom/kernels/cpu/simd/attention_chunk.h"

namespace fathom::simd {

// Of the instruction set that dispatch chose; null: not on this machine. Reads keys in place and
// does not need KeyChunk's feed.
const ChunkProducts* attention_bf16();

}  // namespace fathom::simd
