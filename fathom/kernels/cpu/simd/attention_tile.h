// What the vector attention kernels share: products of a tile of query rows with a block of 64 keys
// on the register tiles of the GEMM, packing of such a block, and scratch. A tile holds rows that
// see ascending numbers of keys. See attention.cpp for the order of summation that makes rows
// independent.
#pragma once

#include <algorithm>
#include <bit>
#include <memory>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/attention_vec.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/tensor/arena.h"

namespace fathom::simd {

// One more than the index of the last bit.
inline int64_t bits_end(uint64_t mask) { return 64 - std::countl_zero(mask); }

// Consecutive pieces of one block of memory, each 64-byte aligned.
class Scratch {
 public:
  Scratch(std::byte* data, int64_t size_bytes) : at_(data), end_(data + size_bytes) {}
  template <class T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(at_);
    at_ += bytes<T>(n);
    FM_CHECK(at_ <= end_, "scratch is {} bytes short", at_ - end_);
    return p;
  }
  template <class T>
  static int64_t bytes(int64_t n) {
    return round_up(n * static_cast<int64_t>(sizeof(T)), 64);
  }

 private:
  std::byte *at_, *end_;
};

// One scratch of equal size for every thread of a call.
class ThreadScratch {
 public:
  ThreadScratch(const Exec& exec, int64_t size_bytes)
      : size_(round_up(size_bytes, 4096)),
        block_(exec.arena->allocate(size_ * exec.pool->size())) {}
  Scratch of(int thread) const { return {block_.get() + thread * size_, size_}; }

 private:
  int64_t size_;
  std::shared_ptr<std::byte> block_;
};

// 64 keys of `width` numbers: as rows, and packed [4][width][16] so that vectors run over keys.
// Rows without a key are zero in the panels.
struct KeyBlock {
  float* panels = nullptr;
  int64_t width = 0;
  const float* rows = nullptr;  // at least round_up(width, 16) readable numbers each
  int64_t ld = 0;
  float* copy = nullptr;  // [64][round_up(width, 16)]

  static int64_t scratch_bytes(int64_t width) {
    return Scratch::bytes<float>(kBlock * width) +
           Scratch::bytes<float>(kBlock * round_up(width, 16));
  }
  void init(Scratch* scratch, int64_t w) {
    width = w;
    panels = scratch->take<float>(kBlock * w);
    copy = scratch->take<float>(kBlock * round_up(w, 16));
  }
  int64_t copy_ld() const { return round_up(width, 16); }
  // n rows as they stand in `copy`, or in memory with round_up(width, 16) readable numbers; for
  // score_few, which needs no panels.
  void use_copy() { use(copy, copy_ld()); }
  void use(const float* src, int64_t src_ld) {
    rows = src;
    ld = src_ld;
  }
  // Packs n rows that stand in `copy` (any number of columns past `width` are zeroed there).
  void pack_copy(const TileTable& tiles, int64_t n);
  // Packs n rows from memory; `direct` lets readers use the rows where they are.
  void pack(const TileTable& tiles, const float* src, int64_t src_ld, int64_t n, bool direct);
};

// Calls f(first, count) over [begin, end) in groups of near equal size that one register tile
// takes.
template <class F>
void for_row_groups(const TileTable& tiles, int64_t begin, int64_t end, F f) {
  const int64_t most = tiles.max_rows;
  for (int64_t i = begin; i < end;) {
    const int64_t left = end - i, groups = (left + most - 1) / most;
    const int64_t count = (left + groups - 1) / groups;
    f(i, count);
    i += count;
  }
}

// All column tiles of one row group: `cols` outputs for `rows` rows. args.b, out, prev, c_old are
// those of column 0. kColumnA: args.a is read down a column (col_tile).
template <bool kColumnA>
inline void tile_columns(const TileTable& tiles, TileArgs args, int64_t rows, int64_t cols) {
  const int64_t panels = (cols + 15) / 16;
  const int64_t widest =
      std::min(panels, int64_t{tiles.panels[kColumnA ? tiles.max_rows : static_cast<int>(rows)]});
  const int64_t steps = (panels + widest - 1) / widest, width = (panels + steps - 1) / steps;
  for (int64_t p = 0; p < panels;) {
    const int64_t w = std::min(width, panels - p);
    args.cols = std::min(cols - p * 16, w * 16);
    (kColumnA ? tiles.col_tile : tiles.row_tile)[rows][w](args);
    args.b += w * args.b_panel;
    args.out += w * 16;
    if (args.prev) args.prev += w * 16;
    if (args.c_old) args.c_old += w * 16;
    p += w;
  }
}

// The largest number of keys that a row of [begin, begin + count) sees in a block.
inline int64_t keys_end(const uint64_t* mask, int64_t begin, int64_t count) {
  uint64_t all = 0;
  for (int64_t r = begin; r < begin + count; ++r) all |= mask[r];
  return bits_end(all);
}

// s[row][64] = a[row] . key for rows [begin, end); a row's columns past its group's last visible
// key are left as they are.
void score_block(const TileTable& tiles, const float* a, int64_t lda, int64_t width,
                 const float* panels, int64_t panel_stride, const uint64_t* mask, int64_t begin,
                 int64_t end, float* s);
// The same for few rows of queries that see n keys each: the queries are packed, once for all
// blocks, and the keys are read where they are. Bits are those of score_block.
class FewRows {
 public:
  static int64_t scratch_bytes(int64_t rows, int64_t width) {
    const int64_t padded = round_up(rows, 16);
    return 2 * Scratch::bytes<float>(padded * width) + 2 * Scratch::bytes<float>(padded * kBlock);
  }
  void init(Scratch* s, int64_t max_rows, int64_t width);
  void set_queries(const TileTable& tiles, const float* q, int64_t rows, int64_t width);
  // s[rows][64]; columns from n on are left as they are, in groups of 16.
  void score(const TileTable& tiles, const KeyBlock& keys, int64_t n, float* s) const;

 private:
  int64_t rows_ = 0, width_ = 0;
  float *panels_ = nullptr, *padded_ = nullptr;  // [rows / 16][width][16], [rows][width]
  float *dots_ = nullptr, *turned_ = nullptr;    // [64][rows], [rows][16]
};

// out[row][cols] (first: =, else +=) sum over the block's keys, ascending, of p[row][key] * v[key]
void weigh_block(const TileTable& tiles, const float* p, const float* v, int64_t ldv, int64_t cols,
                 const uint64_t* mask, int64_t begin, int64_t end, bool first, float* out,
                 int64_t ld_out);
// out[key][cols] (add: +=, else =) sum over rows [begin, end), ascending, of p[row][key] * x[row],
// for the first n keys. x rows have round_up(cols, 16) readable numbers.
void outer_block(const TileTable& tiles, const float* p, const uint64_t* mask, const float* x,
                 int64_t ldx, int64_t cols, int64_t begin, int64_t end, int64_t n, bool add,
                 float* out, int64_t ld_out);

// Sequences cut into tiles of at most `tile_tokens` query rows, by position, in ascending order.
struct QueryTile {
  int32_t seq = 0;
  int32_t first = 0;  // row
  int32_t count = 0;
  int32_t pos = 0;  // of `first`
};
struct QueryTiles {
  std::shared_ptr<std::byte> owner;
  QueryTile* tile = nullptr;
  int64_t size = 0;
};
QueryTiles cut_queries(const Exec& exec, const QueryRows& rows, int64_t tile_tokens);

// mask[i * blocks + b]: which keys of block b row first + i of a selection holds.
void selection_masks(const View& sel, int64_t first, int64_t count, int64_t blocks, uint64_t* mask);

// Below this many times index_topk, scoring a tile's keys densely under masks is faster than
// gathering each token's own (fathom bench attention; the shapes of training).
inline constexpr int64_t kGatherFrom = 2;
inline bool gathers(const View& sel, const QueryTile& tile) {
  return sel && tile.pos + tile.count > kGatherFrom * sel.dim[1];
}
// The selected positions of a row, without the padding.
struct Selected {
  const int32_t* pos;
  int64_t size;
};
Selected selected_keys(const View& sel, int64_t t);

inline const float* row_ptr(const View& v, int64_t a) {
  return static_cast<const float*>(v.data) + a * v.stride[0];
}
inline const float* row_ptr(const View& v, int64_t a, int64_t b) {
  return static_cast<const float*>(v.data) + a * v.stride[0] + b * v.stride[1];
}
inline float* out_ptr(const View& v, int64_t a) {
  return static_cast<float*>(v.data) + a * v.stride[0];
}
inline float* out_ptr(const View& v, int64_t a, int64_t b) {
  return static_cast<float*>(v.data) + a * v.stride[0] + b * v.stride[1];
}

}  // namespace fathom::simd
