// Attention over latents in integer codes (LatentCode of kernels.h) with exact integer products.
// For each 128 numbers of a query, and for the probabilities of a chunk's keys times the keys'
// scales, codes of 16 bits are made: -32512 .. 32512 = largest size, to the nearest, ties to even.
// Integer sums are exact, what is computed from them in f32 has one order, so every instruction set
// and the matrix unit give the same bits:
//   score    the rotary numbers' fma chain, plus the sum over ascending blocks of 128 numbers of
//            integer sum * (query's scale * key's scale), one fma chain
//   z        of a chunk: integer sum over its keys * scale of the probabilities
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/cpu/simd/attention_chunk.h"

namespace fathom::simd {

// Codes of 128 numbers or less; returns their scale (LatentCode).
float code_latents(const float* x, int64_t n, int8_t* codes);

// Of the instruction set that dispatch chose: all its ways that this machine has, the best first.
// All need KeyChunk's feed.
std::vector<const ChunkProducts*> attention_codes_ways();
const ChunkProducts& attention_codes();
// The first of them on the matrix unit, or null.
const ChunkProducts* attention_codes_unit();

}  // namespace fathom::simd
