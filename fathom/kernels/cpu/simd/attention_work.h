// What a thread of the attention kernel needs for one tile of query rows: queries, a block of keys,
// scores and softmax states, in one piece of scratch.
#pragma once

#include <algorithm>
#include <limits>

#include "fathom/kernels/cpu/simd/attention_chunk.h"
#include "fathom/kernels/cpu/simd/attention_pair.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"

namespace fathom::simd {

struct AttentionShape {
  int64_t H, C, R, width, z_ld;
  int64_t pair_keys;         // at most, of a token of a pair; 0 where there are no pairs
  const ChunkProducts* way;  // to compute with chunks of keys, or null
  int64_t groups(int64_t rows) const { return (rows + way->rows - 1) / way->rows; }
};

// Groups of queries and a chunk of keys.
struct ChunkTile {
  std::byte* queries = nullptr;
  int64_t group_bytes = 0;
  KeyChunk keys;

  static int64_t bytes(const AttentionShape& d, int64_t rows) {
    return Scratch::bytes<std::byte>(d.groups(rows) * d.way->group_bytes(d.C, d.R)) +
           Scratch::bytes<std::byte>(d.way->block_bytes(d.C, d.R)) +
           Scratch::bytes<std::byte>(d.way->whole_bytes(d.C));
  }
  void init(Scratch* s, const AttentionShape& d, int64_t rows) {
    group_bytes = d.way->group_bytes(d.C, d.R);
    queries = s->take<std::byte>(d.groups(rows) * group_bytes);
    keys.C = d.C;
    keys.R = d.R;
    keys.block = s->take<std::byte>(d.way->block_bytes(d.C, d.R));
    keys.whole = s->take<std::byte>(d.way->whole_bytes(d.C));
  }
  // Of a row that is the first one of a group.
  std::byte* group(int64_t row, int64_t rows_of_group) const {
    return queries + row / rows_of_group * group_bytes;
  }
};

// Softmax states of the rows of a tile over one chunk or more.
struct SoftmaxState {
  float *z, *max, *sum;
  static int64_t bytes(int64_t rows, int64_t z_ld) {
    return Scratch::bytes<float>(rows * z_ld) + 2 * Scratch::bytes<float>(rows);
  }
  void init(Scratch* s, int64_t rows, int64_t z_ld) {
    z = s->take<float>(rows * z_ld);
    max = s->take<float>(rows);
    sum = s->take<float>(rows);
  }
  // The same without the rows before.
  SoftmaxState from(int64_t row, int64_t z_ld) const {
    return {z + row * z_ld, max + row, sum + row};
  }
  void clear(int64_t rows) const {
    std::fill(max, max + rows, -std::numeric_limits<float>::infinity());
    std::fill(sum, sum + rows, 0.0f);
  }
};

// What a thread needs for one tile.
struct TileWork {
  float *q, *s, *alpha, *spread, *packed;
  uint64_t* mask;
  const void **key, **later;  // of the chunk in use and of the one that follows
  KeyFeed feed;               // of these
  KeyBlock block;
  FewRows few;
  ChunkTile keys;
  Scratch pair{nullptr, 0};  // of PairKeys
  SoftmaxState chunk, total;

  static int64_t score_rows(const AttentionShape& d, int64_t rows) {
    return d.way ? kChunkBlocks * rows : rows;
  }
  static int64_t bytes(const AttentionShape& d, int64_t rows) {
    return Scratch::bytes<float>(rows * d.width) +
           Scratch::bytes<float>(score_rows(d, rows) * kBlock) +
           Scratch::bytes<float>(kChunkBlocks * rows) + Scratch::bytes<uint64_t>(rows) +
           2 * Scratch::bytes<float>(16 * d.width) + 2 * Scratch::bytes<void*>(kChunk) +
           KeyBlock::scratch_bytes(d.width) + FewRows::scratch_bytes(d.H, d.width) +
           (d.way ? ChunkTile::bytes(d, rows) : 0) +
           (d.pair_keys > 0 ? PairKeys::bytes(d.H, d.pair_keys) : 0) +
           2 * SoftmaxState::bytes(rows, d.z_ld);
  }
  TileWork(Scratch scratch, const AttentionShape& d, int64_t rows) {
    q = scratch.take<float>(rows * d.width);
    s = scratch.take<float>(score_rows(d, rows) * kBlock);
    alpha = scratch.take<float>(kChunkBlocks * rows);
    mask = scratch.take<uint64_t>(rows);
    spread = scratch.take<float>(16 * d.width);
    packed = scratch.take<float>(16 * d.width);
    key = scratch.take<const void*>(kChunk);
    later = scratch.take<const void*>(kChunk);
    block.init(&scratch, d.width);
    if (d.way) keys.init(&scratch, d, rows);
    const int64_t of_pair = d.pair_keys > 0 ? PairKeys::bytes(d.H, d.pair_keys) : 0;
    pair = Scratch(scratch.take<std::byte>(of_pair), of_pair);
    few.init(&scratch, d.H, d.width);
    chunk.init(&scratch, rows, d.z_ld);
    total.init(&scratch, rows, d.z_ld);
  }
};

}  // namespace fathom::simd
