// What one instruction set offers to choose the largest of many scores. Every one gives the same
// bits.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

struct SelectionVec {
  // order[64] = positions of 64 scores in their total order, ascending: -0 as +0, NaN with -inf at
  // 0
  void (*orders)(const float* s, uint32_t* order);
  // Appends position and order of those of the first n scores that exceed the threshold; keys count
  // from position `from`. Returns how many; both arrays have room for 16 more.
  int64_t (*append_above)(const float* s, int64_t n, float threshold, int64_t from, int32_t* pos,
                          uint32_t* order);
  // The largest orders, among equals the first, moved to the front with their positions, which stay
  // in order: at least topk of them and at most `most`, *kept says how many. Returns an order that
  // no key to come may have, or less, if it shall be among the topk. n > most >= topk >= 1; pos,
  // order and `few`, which is scratch, have room for n + 16.
  uint32_t (*keep_best)(int32_t* pos, uint32_t* order, int64_t n, int64_t topk, int64_t most,
                        uint32_t* few, int64_t* kept);
};

// Of the instruction set that dispatch chose.
const SelectionVec& selection_vec();

}  // namespace fathom::simd
