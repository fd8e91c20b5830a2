// What a thread of the attention kernel needs for one tile of query rows: queries, a block of keys,
// scores and softmax states, in one piece of scratch.
#pragma once

#include <algorithm>
#include <limits>

#include "fathom/kernels/cpu/simd/attention_bf16.h"
#include "fathom/kernels/cpu/simd/attention_codes.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"

namespace fathom::simd {

inline constexpr int64_t kChunk = 4 * kBlock;  // keys that one softmax state is of

struct AttentionShape {
  int64_t H, C, R, width, z_ld;
  bool coded;                                                // latents in integer codes
  bool half;                                                 // latents of bf16 for the matrix unit
  int64_t panel_width() const { return coded ? R : width; }  // of keys in f32
};

// Queries and a block of keys in codes.
struct CodedTile {
  std::byte* queries;  // groups of kCodedRows rows
  float* scales;
  CodedKeys keys;
  static int64_t groups(int64_t rows) { return (rows + kCodedRows - 1) / kCodedRows; }
  static int64_t spans(int64_t C) { return coded_cols(C) / kCodedSpan; }

  static int64_t bytes(int64_t C, int64_t rows) {
    return Scratch::bytes<std::byte>(groups(rows) * coded_query_bytes(C)) +
           Scratch::bytes<float>(groups(rows) * kCodedRows * spans(C)) +
           2 * Scratch::bytes<int8_t>(kBlock * coded_cols(C)) +
           Scratch::bytes<float>(kBlock * spans(C));
  }
  void init(Scratch* s, int64_t C, int64_t rows) {
    queries = s->take<std::byte>(groups(rows) * coded_query_bytes(C));
    scales = s->take<float>(groups(rows) * kCodedRows * spans(C));
    keys.cols = coded_cols(C);
    keys.codes = s->take<int8_t>(kBlock * keys.cols);
    keys.quads = s->take<int8_t>(kBlock * keys.cols);
    keys.scales = s->take<float>(kBlock * spans(C));
  }
};

// Queries in parts and a block of keys of bf16.
struct HalfTile {
  uint16_t* queries;  // groups of kHalfRows rows
  HalfKeys keys;
  static int64_t groups(int64_t rows) { return (rows + kHalfRows - 1) / kHalfRows; }

  static int64_t bytes(const AttentionShape& d, int64_t rows) {
    return Scratch::bytes<uint16_t>(groups(rows) * half_query_size(d.width)) +
           Scratch::bytes<uint16_t>(half_copy_size(d.width)) +
           Scratch::bytes<uint16_t>(half_pairs_size(d.C));
  }
  void init(Scratch* s, const AttentionShape& d, int64_t rows) {
    queries = s->take<uint16_t>(groups(rows) * half_query_size(d.width));
    keys.copy = s->take<uint16_t>(half_copy_size(d.width));
    keys.pairs = s->take<uint16_t>(half_pairs_size(d.C));
    keys.width = d.width;
    keys.C = d.C;
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
  CodedTile coded;
  HalfTile half;
  SoftmaxState chunk, total;

  static int64_t score_rows(const AttentionShape& d, int64_t rows) {
    return std::max(d.half ? kHalfBlocks * rows : 0, rows + kCodedRows);
  }
  static int64_t bytes(const AttentionShape& d, int64_t rows) {
    return Scratch::bytes<float>(rows * d.width) +
           Scratch::bytes<float>(score_rows(d, rows) * kBlock) +
           Scratch::bytes<float>(kHalfBlocks * rows) + Scratch::bytes<uint64_t>(rows) +
           2 * Scratch::bytes<float>(16 * d.width) + 2 * Scratch::bytes<void*>(kChunk) +
           KeyBlock::scratch_bytes(d.panel_width()) + FewRows::scratch_bytes(d.H, d.width) +
           (d.coded ? CodedTile::bytes(d.C, rows) : 0) + (d.half ? HalfTile::bytes(d, rows) : 0) +
           2 * SoftmaxState::bytes(rows, d.z_ld);
  }
  TileWork(Scratch scratch, const AttentionShape& d, int64_t rows) {
    q = scratch.take<float>(rows * d.width);
    s = scratch.take<float>(score_rows(d, rows) * kBlock);
    alpha = scratch.take<float>(kHalfBlocks * rows);
    mask = scratch.take<uint64_t>(rows);
    spread = scratch.take<float>(16 * d.width);
    packed = scratch.take<float>(16 * d.width);
    key = scratch.take<const void*>(kChunk);
    later = scratch.take<const void*>(kChunk);
    block.init(&scratch, d.panel_width());
    if (d.coded) coded.init(&scratch, d.C, rows);
    if (d.half) half.init(&scratch, d, rows);
    few.init(&scratch, d.H, d.width);
    chunk.init(&scratch, rows, d.z_ld);
    total.init(&scratch, rows, d.z_ld);
  }
};

}  // namespace fathom::simd
