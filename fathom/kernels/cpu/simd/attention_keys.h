// Rows of a latent cache: where they are, and copies of some for a tile.
#pragma once

#include <cstdint>

#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

class KeyRows {
 public:
  KeyRows(const KeyPages& keys, int64_t C, int64_t R)
      : keys_(keys),
        width_(C + R),
        whole_columns_(C % 16 == 0),
        stride_bytes_(keys.stride * dtype_bytes(keys.dtype)),
        bytes_(keys.dtype == DType::kI8 ? coded_row_bytes(C, R) : width_ * dtype_bytes(keys.dtype)),
        tiles_(tile_table()),
        vec_(attention_vec()) {}

  int64_t bytes() const { return bytes_; }  // of a row
  const char* at(int64_t seq, int64_t pos) const {
    return static_cast<const char*>(page_of(seq, pos)) + pos % kPageTokens * stride_bytes_;
  }

  // n rows from a block's first position; `few`: for one query token.
  void load(int64_t seq, int64_t from, int64_t n, bool few, KeyBlock* block) const {
    if (keys_.dtype == DType::kF32) {
      const auto* page = static_cast<const float*>(page_of(seq, from));
      if (!few) return block->pack(tiles_, page, keys_.stride, n, whole_columns_);
      if (whole_columns_) return block->use(page, keys_.stride);
    }
    const void* key[kBlock];
    for (int64_t r = 0; r < n; ++r) key[r] = at(seq, from + r);
    copy(key, n, few, block);
  }
  // The same of n positions.
  void gather(int64_t seq, const int32_t* pos, int64_t n, bool few, KeyBlock* block) const {
    const void* key[kBlock];
    for (int64_t r = 0; r < n; ++r) key[r] = at(seq, pos[r]);
    copy(key, n, few, block);
  }

 private:
  const void* page_of(int64_t seq, int64_t pos) const {
    return keys_.page[keys_.first_page[seq] + pos / kPageTokens];
  }
  void copy(const void* const* key, int64_t n, bool few, KeyBlock* block) const {
    if (keys_.dtype == DType::kE4M3)
      vec_.gather_e4m3(key, n, width_, keys_.coded, block->copy, block->copy_ld());
    else
      (keys_.dtype == DType::kF32 ? vec_.gather_f32 : vec_.gather_bf16)(key, n, width_, block->copy,
                                                                        block->copy_ld());
    if (few)
      block->use_copy();
    else
      block->pack_copy(tiles_, n);
  }

  const KeyPages& keys_;
  int64_t width_;
  bool whole_columns_;  // a block can be read where it is
  int64_t stride_bytes_, bytes_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
};

}  // namespace fathom::simd
