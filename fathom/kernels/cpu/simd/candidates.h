// The K best of scores that come block by block: what is above the K-th best so far is kept, and
// cut back to K when there is no more room.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/selection_vec.h"

namespace fathom::simd {

// The score of an order (SelectionVec::orders); -inf for the place it shares with NaN.
inline float score_of(uint32_t order) {
  if (order == 0) return -std::numeric_limits<float>::infinity();
  return std::bit_cast<float>(order >> 31 ? order & 0x7FFFFFFFu : ~order);
}

// The best `topk` of the keys seen so far and some more, in ascending position.
struct Candidates {
  const SelectionVec* vec;
  int32_t* pos;
  uint32_t *order, *scratch;
  int64_t topk, room, size;
  float threshold;  // only larger scores matter; NaN scores do as long as `open`
  bool open;        // nothing was dropped so far

  static int64_t room_for(int64_t topk) { return 3 * topk + 2 * kBlock; }
  static int64_t bytes(int64_t topk) { return 2 * Scratch::bytes<uint32_t>(room_for(topk)); }
  // For cuts; the rows of a thread have one together.
  static int64_t scratch_bytes(int64_t topk) { return Scratch::bytes<uint32_t>(room_for(topk)); }
  void init(Scratch* s, int64_t k, uint32_t* of_cuts) {
    vec = &selection_vec();
    topk = k;
    room = room_for(k);
    pos = s->take<int32_t>(room);
    order = s->take<uint32_t>(room);
    scratch = of_cuts;
    size = 0;
    threshold = 0;
    open = true;
  }

  // Takes the keys from .. from + n - 1.
  void add_block(const float* scores, int64_t from, int64_t n) {
    if (open) {
      vec->orders(scores, order + size);
      for (int64_t i = 0; i < n; ++i) pos[size + i] = static_cast<int32_t>(from + i);
      size += n;
    } else {
      size += vec->append_above(scores, n, threshold, from, pos + size, order + size);
    }
    if (size + 2 * kBlock > room) cut(topk + topk / 4);
  }
  // Adds n <= topk candidates of other keys to at most topk. Both come in runs.
  void merge(const int32_t* other_pos, const int32_t* other_order, int64_t n) {
    int64_t mine = size;
    size += n;
    while (n > 0) {
      const int64_t before = std::upper_bound(pos, pos + mine, other_pos[n - 1]) - pos;
      std::copy_backward(pos + before, pos + mine, pos + mine + n);
      std::copy_backward(order + before, order + mine, order + mine + n);
      mine = before;
      int64_t first = 0;  // of theirs behind mine
      if (mine > 0) first = std::upper_bound(other_pos, other_pos + n, pos[mine - 1]) - other_pos;
      std::copy_n(other_pos + first, n - first, pos + mine + first);
      std::memcpy(order + mine + first, other_order + first,
                  static_cast<size_t>(n - first) * sizeof *order);
      n = first;
    }
  }

  // Drops all but the topk best, up to `most` of them; among equals the first stay.
  void cut(int64_t most) {
    if (size <= most) return;
    threshold = score_of(vec->keep_best(pos, order, size, topk, most, scratch, &size));
    open = false;
  }
};

}  // namespace fathom::simd
