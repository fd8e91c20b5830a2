// The loss that trains the indexer: KL between the attention probabilities of a row, averaged over
// the heads, and the softmax of its index scores; with the gradient of the indexer's queries,
// weights and keys. A tile of query tokens keeps both rows in full: tokens x keys numbers, twice.
// dk adds the tiles of a sequence in ascending order, as in attention_bwd.cpp.
#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <new>
#include <thread>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/tensor/tensor.h"

namespace fathom::simd {
namespace {

constexpr int64_t kTileRows = 256;           // tokens x heads
constexpr int64_t kRowNumbers = 512 * 1024;  // of p in a tile

struct Work {
  float *attn_q, *q, *s, *p, *scores, *dq, *dw, *lse;
  float* kept;  // [tokens][blocks of the selection][J][64], where tokens gather
  uint64_t *seen, *mask;
  float* sorted;
  KeyBlock kv, k;
};

class Kl {
 public:
  static constexpr int32_t kDone =
      std::numeric_limits<int32_t>::max();  // of a tile: past all its blocks

  Kl(const Exec& exec, const IndexKl& a)
      : exec_(exec), a_(a), tiles_(tile_table()), vec_(attention_vec()) {
    J_ = a.q.dim[1], I_ = a.q.dim[2];
    H_ = a.q_lat.dim[1], C_ = a.q_lat.dim[2], width_ = C_ + a.q_pe.dim[2];
    heads_ = std::max(H_, J_);
    i_ld_ = round_up(I_, 16);
    int64_t longest = 1;
    for (int64_t b = 0; b < a.rows.num_seq; ++b)
      longest = std::max<int64_t>(longest, a.rows.first_row[b + 1] - a.rows.first_row[b]);
    blocks_ = (longest + kBlock - 1) / kBlock;
    const int64_t most = std::min(kTileRows / heads_, kRowNumbers / (blocks_ * kBlock));
    const auto tokens = static_cast<uint64_t>(std::clamp<int64_t>(most, 1, kBlock));
    tokens_ = static_cast<int64_t>(std::bit_floor(tokens));
    queries_ = cut_queries(exec, a.rows, tokens_);
    for (int64_t i = 0; i < queries_.size; ++i)
      if (gathers(a.sel, queries_.tile[i])) kept_blocks_ = (a.sel.dim[1] + kBlock - 1) / kBlock;
  }

  void run() {
    if (queries_.size == 0) return;
    if (a_.dk) fill_zero(a_.dk);
    const ThreadScratch scratch(exec_, scratch_bytes());
    const auto owner = exec_.arena->allocate(queries_.size * 4);
    auto* done = new (owner.get()) std::atomic<int32_t>[static_cast<size_t>(queries_.size)] {};
    exec_.pool->parallel_for(queries_.size, 1, [&](int64_t n, int64_t, int thread) {
      Work w = layout(scratch.of(thread));
      const QueryTile& tile = queries_.tile[n];
      run_tile(tile, &w, tile.pos > 0 ? done + n - 1 : nullptr, done + n);
    });
  }

 private:
  int64_t scratch_bytes() const {
    const int64_t rows = tokens_ * heads_, row = blocks_ * kBlock;
    const int64_t numbers = tokens_ * H_ * width_ + 2 * tokens_ * J_ * i_ld_ + rows * kBlock +
                            2 * tokens_ * row + tokens_ * J_ + tokens_ * H_ + row +
                            tokens_ * J_ * kept_blocks_ * kBlock;
    return numbers * 4 + (rows + 2 * tokens_ * blocks_) * 8 + KeyBlock::scratch_bytes(width_) +
           KeyBlock::scratch_bytes(I_) + 1024;
  }
  Work layout(Scratch s) const {
    const int64_t rows = tokens_ * heads_, row = blocks_ * kBlock;
    Work w{};
    w.attn_q = s.take<float>(tokens_ * H_ * width_);
    w.q = s.take<float>(tokens_ * J_ * i_ld_);
    w.dq = s.take<float>(tokens_ * J_ * i_ld_);
    w.s = s.take<float>(rows * kBlock);
    w.p = s.take<float>(tokens_ * row);
    w.scores = s.take<float>(tokens_ * row);
    w.dw = s.take<float>(tokens_ * J_);
    w.lse = s.take<float>(tokens_ * H_);
    w.sorted = s.take<float>(row);
    w.kept = s.take<float>(tokens_ * J_ * kept_blocks_ * kBlock);
    w.mask = s.take<uint64_t>(rows);
    w.seen = s.take<uint64_t>(tokens_ * blocks_);
    w.kv.init(&s, width_);
    w.k.init(&s, I_);
    return w;
  }

  void load_queries(const QueryTile& tile, Work* w) const {
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t t = tile.first + i;
      for (int64_t h = 0; h < H_; ++h) {
        float* q = w->attn_q + (i * H_ + h) * width_;
        std::copy_n(row_ptr(a_.q_lat, t, h), C_, q);
        std::copy_n(row_ptr(a_.q_pe, t, h), width_ - C_, q + C_);
        w->lse[i * H_ + h] = row_ptr(a_.lse, t)[h];
      }
      for (int64_t j = 0; j < J_; ++j)
        std::copy_n(row_ptr(a_.q, t, j), I_, w->q + (i * J_ + j) * i_ld_);
    }
  }

  // Masks of block b for `heads` rows per token; returns the first token that sees the block, or
  // tile.count when nobody does.
  int64_t spread_masks(const QueryTile& tile, int64_t b, int64_t blocks, int64_t heads,
                       Work* w) const {
    const int64_t skipped = std::max<int64_t>(0, b * kBlock - tile.pos);
    uint64_t any = 0;
    for (int64_t i = skipped; i < tile.count; ++i) {
      any |= w->seen[i * blocks + b];
      std::fill_n(w->mask + i * heads, heads, w->seen[i * blocks + b]);
    }
    return any ? skipped : tile.count;
  }

  void run_tile(const QueryTile& tile, Work* w, const std::atomic<int32_t>* before,
                std::atomic<int32_t>* done) const {
    const int64_t keys = tile.pos + tile.count, blocks = (keys + kBlock - 1) / kBlock;
    load_queries(tile, w);
    if (gathers(a_.sel, tile)) return run_gathered(tile, w, before, done);
    if (a_.sel) {
      selection_masks(a_.sel, tile.first, tile.count, blocks, w->seen);
    } else {
      for (int64_t i = 0; i < tile.count; ++i)
        for (int64_t b = 0; b < blocks; ++b)
          w->seen[i * blocks + b] = low_bits(tile.pos + i + 1 - b * kBlock);
    }
    for (int64_t b = 0; b < blocks; ++b) fill_rows(tile, b, blocks, w);
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t row = i * blocks;
      row_loss(tile.first + i, w->p + row * kBlock, w->scores + row * kBlock, w->seen + row, blocks,
               w);
    }
    if (a_.dq) {
      std::fill_n(w->dq, tile.count * J_ * i_ld_, 0.0f);
      std::fill_n(w->dw, tile.count * J_, 0.0f);
      for (int64_t b = 0; b < blocks; ++b) backward_block(tile, b, blocks, w, before, done);
      store_queries(tile, *w);
    }
    done->store(kDone, std::memory_order_release);
  }

  void store_queries(const QueryTile& tile, const Work& w) const {
    for (int64_t i = 0; i < tile.count; ++i) {
      for (int64_t j = 0; j < J_; ++j)
        std::copy_n(w.dq + (i * J_ + j) * i_ld_, I_, out_ptr(a_.dq, tile.first + i, j));
      std::copy_n(w.dw + i * J_, J_, out_ptr(a_.dw, tile.first + i));
    }
  }

  // Each token on the keys that it selected; the shares of dk wait until the tile before is done.
  void run_gathered(const QueryTile& tile, Work* w, const std::atomic<int32_t>* before,
                    std::atomic<int32_t>* done) const {
    std::fill_n(w->dq, tile.count * J_ * i_ld_, 0.0f);
    std::fill_n(w->dw, tile.count * J_, 0.0f);
    for (int64_t i = 0; i < tile.count; ++i) gather_token(tile, i, w);
    while (before && before->load(std::memory_order_acquire) != kDone) std::this_thread::yield();
    if (a_.dq) {
      for (int64_t i = 0; i < tile.count; ++i) scatter_token(tile, i, w);
      store_queries(tile, *w);
    }
    done->store(kDone, std::memory_order_release);
  }

  // Packs the rows of `from` that block b of the token's selection names; returns how many.
  int64_t gather_block(const QueryTile& tile, int64_t i, int64_t b, const View& from,
                       KeyBlock* block) const {
    const Selected sel = selected_keys(a_.sel, tile.first + i);
    const int64_t n = std::min(kBlock, sel.size - b * kBlock);
    const void* src[kBlock];
    for (int64_t r = 0; r < n; ++r)
      src[r] = row_ptr(from, tile.first - tile.pos + sel.pos[b * kBlock + r]);
    vec_.gather_f32(src, n, block->width, block->copy, block->copy_ld());
    block->pack_copy(tiles_, n);
    return n;
  }
  float* kept(const Work& w, int64_t i, int64_t b) const {
    return w.kept + (i * kept_blocks_ + b) * J_ * kBlock;
  }

  void gather_token(const QueryTile& tile, int64_t i, Work* w) const {
    const int64_t t = tile.first + i, keys = selected_keys(a_.sel, t).size;
    const int64_t blocks = (keys + kBlock - 1) / kBlock;
    const auto dots = [&](int64_t b) {
      std::fill_n(w->mask, J_, w->seen[b]);
      score_block(tiles_, w->q + i * J_ * i_ld_, i_ld_, I_, w->k.panels, 16 * I_, w->mask, 0, J_,
                  kept(*w, i, b));
    };
    for (int64_t b = 0; b < blocks; ++b) {
      w->seen[b] = low_bits(gather_block(tile, i, b, a_.kv, &w->kv));
      std::fill_n(w->mask, H_, w->seen[b]);
      score_block(tiles_, w->attn_q + i * H_ * width_, width_, width_, w->kv.panels, 16 * width_,
                  w->mask, 0, H_, w->s);
      vec_.add_probabilities(w->s, H_, w->seen[b], static_cast<float>(a_.attn_scale),
                             w->lse + i * H_, w->p + b * kBlock);
      gather_block(tile, i, b, a_.k, &w->k);
      dots(b);
      vec_.relu_combine(kept(*w, i, b), J_, row_ptr(a_.w, t), w->scores + b * kBlock);
    }
    row_loss(t, w->p, w->scores, w->seen, blocks, w);
    for (int64_t b = 0; a_.dq && b < blocks; ++b) {
      if (blocks > 1) gather_block(tile, i, b, a_.k, &w->k);
      vec_.relu_backward(kept(*w, i, b), J_, w->seen[b], row_ptr(a_.w, t), w->scores + b * kBlock,
                         w->dw + i * J_);
      std::fill_n(w->mask, J_, w->seen[b]);
      weigh_block(tiles_, kept(*w, i, b), w->k.rows, w->k.ld, I_, w->mask, 0, J_, false,
                  w->dq + i * J_ * i_ld_, i_ld_);
    }
  }

  void scatter_token(const QueryTile& tile, int64_t i, Work* w) const {
    const Selected sel = selected_keys(a_.sel, tile.first + i);
    float* dst[kBlock];
    for (int64_t b = 0; b * kBlock < sel.size; ++b) {
      const int64_t n = std::min(kBlock, sel.size - b * kBlock);
      std::fill_n(w->mask, J_, low_bits(n));
      outer_block(tiles_, kept(*w, i, b), w->mask, w->q + i * J_ * i_ld_, i_ld_, I_, 0, J_, n,
                  false, w->k.copy, w->k.copy_ld());
      for (int64_t r = 0; r < n; ++r)
        dst[r] = out_ptr(a_.dk, tile.first - tile.pos + sel.pos[b * kBlock + r]);
      vec_.scatter_add(w->k.copy, w->k.copy_ld(), n, I_, dst);
    }
  }

  int64_t first_key(const QueryTile& tile, int64_t b) const {
    return tile.first - tile.pos + b * kBlock;
  }

  void pack_index_keys(const QueryTile& tile, int64_t b, Work* w) const {
    const int64_t n = std::min(kBlock, tile.pos + tile.count - b * kBlock);
    w->k.pack(tiles_, row_ptr(a_.k, first_key(tile, b)), a_.k.stride[0], n, I_ % 16 == 0);
  }

  // p and the index scores of one block, for all tokens of the tile.
  void fill_rows(const QueryTile& tile, int64_t b, int64_t blocks, Work* w) const {
    const auto cell = [&](float* rows, int64_t i) { return rows + (i * blocks + b) * kBlock; };
    const int64_t first = spread_masks(tile, b, blocks, H_, w);
    for (int64_t i = 0; i < first; ++i) {
      std::fill_n(cell(w->p, i), kBlock, 0.0f);
      std::fill_n(cell(w->scores, i), kBlock, 0.0f);
    }
    if (first == tile.count) return;
    const int64_t n = std::min(kBlock, tile.pos + tile.count - b * kBlock);
    w->kv.pack(tiles_, row_ptr(a_.kv, first_key(tile, b)), a_.kv.stride[0], n, true);
    score_block(tiles_, w->attn_q, width_, width_, w->kv.panels, 16 * width_, w->mask, first * H_,
                tile.count * H_, w->s);
    for (int64_t i = first; i < tile.count; ++i)
      vec_.add_probabilities(w->s + i * H_ * kBlock, H_, w->seen[i * blocks + b],
                             static_cast<float>(a_.attn_scale), w->lse + i * H_, cell(w->p, i));
    spread_masks(tile, b, blocks, J_, w);
    pack_index_keys(tile, b, w);
    score_block(tiles_, w->q, i_ld_, I_, w->k.panels, 16 * I_, w->mask, first * J_, tile.count * J_,
                w->s);
    for (int64_t i = first; i < tile.count; ++i)
      vec_.relu_combine(w->s + i * J_ * kBlock, J_, row_ptr(a_.w, tile.first + i),
                        cell(w->scores, i));
  }

  // Loss and mass of row t; scores become their gradient.
  void row_loss(int64_t t, float* p, float* scores, const uint64_t* seen, int64_t blocks,
                Work* w) const {
    float cut = 0;
    int64_t equal_left = 0;
    if (a_.mass) {
      const auto [score, count] = best_cut(scores, seen, blocks, w->sorted);
      cut = score;
      equal_left = count;
      // Scores become gradients below.
      std::copy_n(scores, blocks * kBlock, w->sorted);
    }
    out_ptr(a_.kl, 0)[t * a_.kl.stride[0]] = vec_.kl_row(
        p, scores, seen, blocks, static_cast<bool>(a_.dq), static_cast<float>(a_.scale));
    if (!a_.mass) return;
    double mass = 0;
    for (int64_t b = 0; b < blocks; ++b)
      for (uint64_t m = seen[b]; m != 0; m &= m - 1) {
        const int64_t s = b * kBlock + std::countr_zero(m);
        const bool equal = w->sorted[s] == cut;
        if (!(w->sorted[s] > cut) && !(equal && equal_left > 0)) continue;
        equal_left -= equal;
        mass += static_cast<double>(p[s]);
      }
    out_ptr(a_.mass, 0)[t * a_.mass.stride[0]] = static_cast<float>(mass);
  }

  struct Cut {
    float score;    // of the last key that is kept
    int64_t equal;  // keys of that score to keep
  };
  // Of the mass_topk best scores of a row.
  Cut best_cut(const float* scores, const uint64_t* seen, int64_t blocks, float* sorted) const {
    int64_t n = 0;
    for (int64_t b = 0; b < blocks; ++b)
      for (uint64_t m = seen[b]; m != 0; m &= m - 1)
        sorted[n++] = scores[b * kBlock + std::countr_zero(m)];
    if (n <= a_.mass_topk) return {-std::numeric_limits<float>::infinity(), n};
    std::nth_element(sorted, sorted + a_.mass_topk - 1, sorted + n, std::greater<>());
    const float last = sorted[a_.mass_topk - 1];
    int64_t above = 0;
    for (int64_t i = 0; i < a_.mass_topk; ++i) above += sorted[i] > last;
    return {last, a_.mass_topk - above};
  }

  void backward_block(const QueryTile& tile, int64_t b, int64_t blocks, Work* w,
                      const std::atomic<int32_t>* before, std::atomic<int32_t>* done) const {
    const int64_t first = spread_masks(tile, b, blocks, J_, w), begin = first * J_;
    const int64_t rows = tile.count * J_;
    const int64_t n = std::min(kBlock, tile.pos + tile.count - b * kBlock);
    if (first < tile.count) {
      pack_index_keys(tile, b, w);
      score_block(tiles_, w->q, i_ld_, I_, w->k.panels, 16 * I_, w->mask, begin, rows, w->s);
      for (int64_t i = first; i < tile.count; ++i)
        vec_.relu_backward(w->s + i * J_ * kBlock, J_, w->seen[i * blocks + b],
                           row_ptr(a_.w, tile.first + i), w->scores + (i * blocks + b) * kBlock,
                           w->dw + i * J_);
      weigh_block(tiles_, w->s, w->k.rows, w->k.ld, I_, w->mask, begin, rows, false, w->dq, i_ld_);
    }
    while (before && before->load(std::memory_order_acquire) <= b) std::this_thread::yield();
    if (first < tile.count)
      outer_block(tiles_, w->s, w->mask, w->q, i_ld_, I_, begin, rows, n, true,
                  out_ptr(a_.dk, first_key(tile, b)), a_.dk.stride[0]);
    done->store(static_cast<int32_t>(b + 1), std::memory_order_release);
  }

  const Exec& exec_;
  const IndexKl& a_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
  int64_t J_, I_, H_, C_, width_, heads_, i_ld_, blocks_, tokens_, kept_blocks_ = 0;
  QueryTiles queries_;
};

}  // namespace

void index_kl(const Exec& exec, const IndexKl& a) {
  if (a.q.dtype != DType::kF32) return ref::index_kl(exec, a);
  Kl(exec, a).run();
}

}  // namespace fathom::simd
