// Attention over expanded keys and values (naive form). A tile is some query tokens of one head;
// online softmax over the blocks of 64 keys from position 0. A selection masks the blocks it is
// found in, so that a row which selects all its keys gives the bits of dense attention.
#include <algorithm>
#include <cmath>
#include <limits>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {
namespace {

constexpr int64_t kTileTokens = 256;

struct Work {
  float *q, *s, *z, *max, *sum, *alpha;
  uint64_t *mask, *selected;
  KeyBlock k;
  float* v;

  static int64_t numbers(int64_t rows, int64_t width, int64_t v_ld) {
    return rows * (width + kBlock + v_ld + 3) + kBlock * v_ld;
  }
};

class Forward {
 public:
  Forward(const Exec& exec, const AttentionMha& a)
      : exec_(exec), a_(a), tiles_(tile_table()), vec_(attention_vec()) {
    H_ = a.q_nope.dim[1], N_ = a.q_nope.dim[2], R_ = a.q_pe.dim[2], V_ = a.v.dim[2];
    width_ = N_ + R_;
    v_ld_ = round_up(V_, 16);
    queries_ = cut_queries(exec, a.rows, kTileTokens);
    for (int64_t i = 0; i < queries_.size; ++i) {
      const QueryTile& tile = queries_.tile[i];
      rows_ = std::max<int64_t>(rows_, tile.count);
      blocks_ = std::max(blocks_, (tile.pos + tile.count + kBlock - 1) / kBlock);
    }
  }

  void run() {
    const int64_t size = Work::numbers(rows_ + 16, width_, v_ld_) * 4 +
                         KeyBlock::scratch_bytes(width_) + rows_ * (a_.sel ? blocks_ + 1 : 1) * 8;
    const ThreadScratch scratch(exec_, size + 1024);
    exec_.pool->parallel_for(queries_.size * H_, 1, [&](int64_t n, int64_t, int thread) {
      Work w = layout(scratch.of(thread));
      run_tile(queries_.tile[queries_.size - 1 - n / H_], n % H_, &w);
    });
  }

 private:
  Work layout(Scratch s) const {
    Work w{};
    w.q = s.take<float>(rows_ * width_);
    w.s = s.take<float>(rows_ * kBlock);
    w.z = s.take<float>(rows_ * v_ld_);
    for (float** p : {&w.max, &w.sum, &w.alpha}) *p = s.take<float>(rows_);
    w.mask = s.take<uint64_t>(rows_);
    if (a_.sel) w.selected = s.take<uint64_t>(rows_ * blocks_);
    w.k.init(&s, width_);
    w.v = s.take<float>(kBlock * v_ld_);
    return w;
  }

  void run_tile(const QueryTile& tile, int64_t h, Work* w) const {
    const int64_t rows = tile.count, keys = tile.pos + rows, blocks = (keys + kBlock - 1) / kBlock;
    for (int64_t i = 0; i < rows; i += kBlock) {
      const int64_t n = std::min(kBlock, rows - i);
      const void *nope[kBlock], *pe[kBlock];
      for (int64_t r = 0; r < n; ++r) {
        nope[r] = row_ptr(a_.q_nope, tile.first + i + r, h);
        pe[r] = row_ptr(a_.q_pe, tile.first + i + r, h);
      }
      vec_.gather_f32(nope, n, N_, w->q + i * width_, width_);
      vec_.gather_f32(pe, n, R_, w->q + i * width_ + N_, width_);
    }
    if (a_.sel) selection_masks(a_.sel, tile.first, rows, blocks, w->selected);
    std::fill_n(w->max, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(w->sum, rows, 0.0f);
    std::fill_n(w->z, rows * v_ld_, 0.0f);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t from = b * kBlock, begin = std::max<int64_t>(0, from - tile.pos);
      uint64_t any = 0;
      for (int64_t i = begin; i < rows; ++i)
        any |= w->mask[i] =
            a_.sel ? w->selected[i * blocks + b] : low_bits(tile.pos + i + 1 - from);
      if (any) run_block(tile, h, from, std::min(kBlock, keys - from), begin, w);
    }
    for (int64_t i = 0; i < rows; ++i) {
      vec_.divide(w->z + i * v_ld_, w->sum[i], V_, out_ptr(a_.o, tile.first + i, h));
      if (a_.lse) out_ptr(a_.lse, tile.first + i)[h] = w->max[i] + std::log(w->sum[i]);
    }
  }

  void run_block(const QueryTile& tile, int64_t h, int64_t from, int64_t n, int64_t begin,
                 Work* w) const {
    const int64_t rows = tile.count, first = tile.first - tile.pos + from;  // row of the first key
    const void *nope[kBlock], *pe[kBlock], *value[kBlock];
    for (int64_t r = 0; r < n; ++r) {
      nope[r] = row_ptr(a_.k_nope, first + r, h);
      pe[r] = row_ptr(a_.k_pe, first + r);
      value[r] = row_ptr(a_.v, first + r, h);
    }
    vec_.gather_f32(nope, n, N_, w->k.copy, w->k.copy_ld());
    vec_.gather_f32(pe, n, R_, w->k.copy + N_, w->k.copy_ld());
    w->k.pack_copy(tiles_, n);
    vec_.gather_f32(value, n, V_, w->v, v_ld_);
    score_block(tiles_, w->q, width_, width_, w->k.panels, 16 * width_, w->mask, begin, rows, w->s);
    vec_.softmax_block(w->s + begin * kBlock, w->mask + begin, rows - begin,
                       static_cast<float>(a_.scale), w->max + begin, w->sum + begin,
                       w->alpha + begin);
    vec_.scale_rows(w->z + begin * v_ld_, v_ld_, v_ld_, rows - begin, w->alpha + begin);
    weigh_block(tiles_, w->s, w->v, v_ld_, V_, w->mask, begin, rows, false, w->z, v_ld_);
  }

  const Exec& exec_;
  const AttentionMha& a_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
  int64_t H_, N_, R_, V_, width_, v_ld_, rows_ = 0, blocks_ = 0;
  QueryTiles queries_;
};

}  // namespace

void attention_mha(const Exec& exec, const AttentionMha& a) {
  if (a.q_nope.dtype != DType::kF32) return ref::attention_mha(exec, a);
  Forward(exec, a).run();
}

}  // namespace fathom::simd
