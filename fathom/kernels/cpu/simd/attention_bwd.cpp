// Adjoints of both forms of attention. A group is what shares keys: a sequence (absorbed form, rows
// are tokens x heads) or one head of a sequence (naive form). Each tile of query rows walks over
// its key blocks:
//   S = Q K^T, P = exp(scale S - lse), dP = dO V^T, dS = scale P (dP - delta), delta = dO . O
//   dQ += dS K,  dV += P^T dO,  dK += dS^T Q
// dK and dV add the tiles of a group in ascending order: with few groups, tiles run in parallel and
// a tile waits at each block until the one before it is past that block.
#include <algorithm>
#include <atomic>
#include <limits>
#include <new>
#include <thread>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/tensor/tensor.h"

namespace fathom::simd {
namespace {

constexpr int64_t kTileRows = 256;
constexpr int64_t kTileNumbers = 96 * 1024;
constexpr int kTasksPerThread = 4;
constexpr int32_t kDone = std::numeric_limits<int32_t>::max();  // of a tile: past all its blocks

// The two forms in one shape: q = [q1 | q2], k = [k1 | k2].
struct Form {
  View q1, q2, k1, k2, v, o, d_o, lse, sel;
  View dq1, dq2, dk1, dk2, dv;
  bool add_dq1 = false, add_dq2 = false, add_dk1 = false, add_dk2 = false, add_dv = false;
  bool shared = false;  // keys are shared by the heads; v is the beginning of k1, k2 follows k1
  QueryRows rows;
  float scale = 1;
};

struct Work {
  float *q, *o, *d_o, *dq, *s, *dp, *lse, *delta;
  float *kept_s, *kept_dp;  // [tokens][blocks of the selection][heads][64], where tokens gather
  uint64_t *mask, *selected;
  KeyBlock k, v;
};

class Backward {
 public:
  Backward(const Exec& exec, const Form& f)
      : exec_(exec), f_(f), tiles_(tile_table()), vec_(attention_vec()) {
    H_ = f.q1.dim[1], N_ = f.q1.dim[2], R_ = f.q2.dim[2], V_ = f.v.last();
    heads_ = f.shared ? H_ : 1;
    width_ = N_ + R_;
    ld_ = round_up(width_, 16) + 16;  // reads of 16 may start at column N
    v_ld_ = round_up(V_, 16);
    const int64_t rows = std::min(kTileRows, std::max(kTileNumbers / width_, int64_t{16}));
    const auto tokens = static_cast<uint64_t>(std::clamp<int64_t>(rows / heads_, 1, kTileRows));
    queries_ = cut_queries(exec, f.rows, static_cast<int64_t>(std::bit_floor(tokens)));
    for (int64_t i = 0; i < queries_.size; ++i) {
      const QueryTile& tile = queries_.tile[i];
      rows_ = std::max(rows_, tile.count * heads_);
      blocks_ = std::max(blocks_, (tile.pos + tile.count + kBlock - 1) / kBlock);
      if (f.shared && gathers(f.sel, tile)) kept_blocks_ = (f.sel.dim[1] + kBlock - 1) / kBlock;
    }
  }

  void run() {
    if (queries_.size == 0) return;
    const ThreadScratch scratch(exec_, scratch_bytes());
    const int64_t per_seq = H_ / heads_;
    const int64_t groups = f_.rows.num_seq * per_seq;
    if (exec_.pool->size() == 1 || groups >= kTasksPerThread * exec_.pool->size()) {
      exec_.pool->parallel_for(groups, 1, [&](int64_t g, int64_t, int thread) {
        Work w = layout(scratch.of(thread));
        const auto end = queries_.tile + queries_.size;
        const QueryTile* tile = std::partition_point(
            queries_.tile, end, [&](const QueryTile& t) { return t.seq < g / per_seq; });
        for (; tile < end && tile->seq == g / per_seq; ++tile)
          run_tile(*tile, g % per_seq, &w, nullptr, nullptr);
      });
      return;
    }
    const auto owner = exec_.arena->allocate(queries_.size * per_seq * 4);
    auto* done =
        new (owner.get()) std::atomic<int32_t>[static_cast<size_t>(queries_.size * per_seq)] {};
    exec_.pool->parallel_for(queries_.size * per_seq, 1, [&](int64_t n, int64_t, int thread) {
      Work w = layout(scratch.of(thread));
      const QueryTile& tile = queries_.tile[n / per_seq];
      run_tile(tile, n % per_seq, &w, tile.pos > 0 ? done + n - per_seq : nullptr, done + n);
    });
  }

 private:
  int64_t scratch_bytes() const {
    const int64_t numbers = rows_ * (2 * ld_ + v_ld_ + 2 * kBlock * (1 + kept_blocks_) + 2);
    return (numbers + kBlock * v_ld_) * 4 + rows_ * 8 +
           (f_.sel ? rows_ / heads_ * blocks_ * 8 : 0) + KeyBlock::scratch_bytes(width_) +
           KeyBlock::scratch_bytes(V_) + 1024;
  }
  Work layout(Scratch s) const {
    Work w{};
    for (float** p : {&w.q, &w.dq}) *p = s.take<float>(rows_ * ld_);
    w.o = s.take<float>(kBlock * v_ld_);
    w.d_o = s.take<float>(rows_ * v_ld_);
    for (float** p : {&w.s, &w.dp}) *p = s.take<float>(rows_ * kBlock);
    for (float** p : {&w.lse, &w.delta}) *p = s.take<float>(rows_);
    for (float** p : {&w.kept_s, &w.kept_dp}) *p = s.take<float>(rows_ * kept_blocks_ * kBlock);
    w.mask = s.take<uint64_t>(rows_);
    if (f_.sel) w.selected = s.take<uint64_t>(rows_ / heads_ * blocks_);
    w.k.init(&s, width_);
    if (!f_.shared) w.v.init(&s, V_);
    return w;
  }

  void load_queries(const QueryTile& tile, int64_t first_head, Work* w) const {
    const auto row = [&](const View& v, int64_t r) {
      return row_ptr(v, tile.first + r / heads_, first_head + r % heads_);
    };
    const int64_t rows = tile.count * heads_;
    for (int64_t r = 0; r < rows; r += kBlock) {
      const int64_t n = std::min(kBlock, rows - r);
      const auto take = [&](const View& from, int64_t width, float* to, int64_t ld) {
        const void* src[kBlock];
        for (int64_t i = 0; i < n; ++i) src[i] = row(from, r + i);
        vec_.gather_f32(src, n, width, to, ld);
      };
      take(f_.q1, N_, w->q + r * ld_, ld_);
      take(f_.q2, R_, w->q + r * ld_ + N_, ld_);
      take(f_.o, V_, w->o, v_ld_);
      take(f_.d_o, V_, w->d_o + r * v_ld_, v_ld_);
      for (int64_t i = 0; i < n; ++i)
        w->delta[r + i] = vec_.dot(w->d_o + (r + i) * v_ld_, w->o + i * v_ld_, V_);
    }
    for (int64_t r = 0; r < rows; ++r)
      w->lse[r] = row_ptr(f_.lse, tile.first + r / heads_)[first_head + r % heads_];
  }

  void load_keys(int64_t first, int64_t head, int64_t n, Work* w) const {
    if (f_.shared) {
      w->k.pack(tiles_, row_ptr(f_.k1, first), f_.k1.stride[0], n, width_ % 16 == 0);
      return;
    }
    const void *nope[kBlock], *pe[kBlock], *v[kBlock];
    for (int64_t r = 0; r < n; ++r) {
      nope[r] = row_ptr(f_.k1, first + r, head);
      pe[r] = row_ptr(f_.k2, first + r);
      v[r] = row_ptr(f_.v, first + r, head);
    }
    vec_.gather_f32(nope, n, N_, w->k.copy, w->k.copy_ld());
    vec_.gather_f32(pe, n, R_, w->k.copy + N_, w->k.copy_ld());
    w->k.pack_copy(tiles_, n);
    vec_.gather_f32(v, n, V_, w->v.copy, w->v.copy_ld());
    w->v.pack_copy(tiles_, n);
  }

  void run_tile(const QueryTile& tile, int64_t head, Work* w, const std::atomic<int32_t>* before,
                std::atomic<int32_t>* done) const {
    const int64_t rows = tile.count * heads_, keys = tile.pos + tile.count;
    const int64_t blocks = (keys + kBlock - 1) / kBlock;
    load_queries(tile, head, w);
    if (f_.shared) clear_keys(tile.first, tile.count, head);
    if (f_.shared && gathers(f_.sel, tile)) return run_gathered(tile, w, before, done);
    if (f_.sel) selection_masks(f_.sel, tile.first, tile.count, blocks, w->selected);
    std::fill_n(w->dq, rows * ld_, 0.0f);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t from = b * kBlock, n = std::min(kBlock, keys - from);
      const int64_t skipped = std::max<int64_t>(0, from - tile.pos);
      uint64_t any = 0;
      for (int64_t i = skipped; i < tile.count; ++i) {
        const uint64_t m = f_.sel ? w->selected[i * blocks + b] : low_bits(tile.pos + i + 1 - from);
        std::fill_n(w->mask + i * heads_, heads_, m);
        any |= m;
      }
      const int64_t begin = skipped * heads_, first_key = tile.first - tile.pos + from;
      // No tile before this one sees the keys at its own positions.
      const bool fresh = !f_.shared && any && from >= tile.pos;
      const int64_t own = std::max<int64_t>(0, tile.pos - from);
      if (any) run_block(first_key, head, n, begin, rows, w);
      if (!f_.shared && !fresh && own < n) clear_keys(first_key + own, n - own, head);
      while (before && before->load(std::memory_order_acquire) <= b) std::this_thread::yield();
      if (any) add_to_keys(first_key, head, n, begin, rows, fresh, *w);
      if (done) done->store(static_cast<int32_t>(b + 1), std::memory_order_release);
    }
    if (done) done->store(kDone, std::memory_order_release);
    store_queries(tile, head, *w);
  }

  void clear_keys(int64_t first, int64_t count, int64_t head) const {
    const auto clear = [&](const View& to, bool add) {
      if (!to || add) return;
      for (int64_t t = first; t < first + count; ++t)
        std::fill_n(to.rank == 2 ? out_ptr(to, t) : out_ptr(to, t, head), to.last(), 0.0f);
    };
    clear(f_.dk1, f_.add_dk1);
    if (f_.shared) return;  // dv is a part of dk1
    clear(f_.dk2, f_.add_dk2);
    clear(f_.dv, f_.add_dv);
  }

  void store_queries(const QueryTile& tile, int64_t head, const Work& w) const {
    for (int64_t i = 0; i < tile.count; ++i)
      for (int64_t j = 0; j < heads_; ++j) {
        const float* dq = w.dq + (i * heads_ + j) * ld_;
        store(f_.dq1, tile.first + i, head + j, dq, N_, f_.add_dq1);
        store(f_.dq2, tile.first + i, head + j, dq + N_, R_, f_.add_dq2);
      }
  }

  static void store(const View& to, int64_t t, int64_t h, const float* from, int64_t n, bool add) {
    if (!to) return;
    float* y = out_ptr(to, t, h);
    if (!add)
      std::copy_n(from, n, y);
    else
      for (int64_t i = 0; i < n; ++i) y[i] += from[i];
  }

  // Block `from` of the selection of token i: its keys, and where its P or dS is kept.
  int64_t key_rows(const QueryTile& tile, int64_t i, int64_t from, int64_t* rows) const {
    const Selected sel = selected_keys(f_.sel, tile.first + i);
    const int64_t n = std::min(kBlock, sel.size - from);
    for (int64_t r = 0; r < n; ++r) rows[r] = tile.first - tile.pos + sel.pos[from + r];
    return n;
  }
  float* kept(float* base, int64_t i, int64_t from) const {
    return base + (i * kept_blocks_ + from / kBlock) * heads_ * kBlock;
  }

  void run_gathered(const QueryTile& tile, Work* w, const std::atomic<int32_t>* before,
                    std::atomic<int32_t>* done) const {
    std::fill_n(w->dq, tile.count * heads_ * ld_, 0.0f);
    for (int64_t i = 0; i < tile.count; ++i) gather_token(tile, i, w);
    while (before && before->load(std::memory_order_acquire) != kDone) std::this_thread::yield();
    if (f_.dk1)
      for (int64_t i = 0; i < tile.count; ++i) scatter_token(tile, i, w);
    if (done) done->store(kDone, std::memory_order_release);
    store_queries(tile, 0, *w);
  }

  void gather_token(const QueryTile& tile, int64_t i, Work* w) const {
    int64_t key[kBlock];
    const void* src[kBlock];
    const int64_t row = i * heads_;
    for (int64_t from = 0, n; (n = key_rows(tile, i, from, key)) > 0; from += kBlock) {
      for (int64_t r = 0; r < n; ++r) src[r] = row_ptr(f_.k1, key[r]);
      vec_.gather_f32(src, n, width_, w->k.copy, w->k.copy_ld());
      w->k.pack_copy(tiles_, n);
      std::fill_n(w->mask, heads_, low_bits(n));
      float *s = kept(w->kept_s, i, from), *dp = kept(w->kept_dp, i, from);
      score_block(tiles_, w->q + row * ld_, ld_, width_, w->k.panels, 16 * width_, w->mask, 0,
                  heads_, s);
      score_block(tiles_, w->d_o + row * v_ld_, v_ld_, V_, w->k.panels, 16 * width_, w->mask, 0,
                  heads_, dp);
      vec_.softmax_backward(s, dp, w->mask, heads_, f_.scale, w->lse + row, w->delta + row);
      weigh_block(tiles_, dp, w->k.rows, w->k.ld, width_, w->mask, 0, heads_, false,
                  w->dq + row * ld_, ld_);
    }
  }

  void scatter_token(const QueryTile& tile, int64_t i, Work* w) const {
    int64_t key[kBlock];
    float* dst[kBlock];
    const int64_t row = i * heads_, ld = w->k.copy_ld();
    for (int64_t from = 0, n; (n = key_rows(tile, i, from, key)) > 0; from += kBlock) {
      std::fill_n(w->mask, heads_, low_bits(n));
      outer_block(tiles_, kept(w->kept_dp, i, from), w->mask, w->q + row * ld_, ld_, width_, 0,
                  heads_, n, false, w->k.copy, ld);
      outer_block(tiles_, kept(w->kept_s, i, from), w->mask, w->d_o + row * v_ld_, v_ld_, V_, 0,
                  heads_, n, true, w->k.copy, ld);
      for (int64_t r = 0; r < n; ++r) dst[r] = out_ptr(f_.dk1, key[r]);
      vec_.scatter_add(w->k.copy, ld, n, width_, dst);
    }
  }

  void run_block(int64_t first_key, int64_t head, int64_t n, int64_t begin, int64_t rows,
                 Work* w) const {
    load_keys(first_key, head, n, w);
    score_block(tiles_, w->q, ld_, width_, w->k.panels, 16 * width_, w->mask, begin, rows, w->s);
    const KeyBlock& v = f_.shared ? w->k : w->v;
    score_block(tiles_, w->d_o, v_ld_, V_, v.panels, 16 * v.width, w->mask, begin, rows, w->dp);
    vec_.softmax_backward(w->s + begin * kBlock, w->dp + begin * kBlock, w->mask + begin,
                          rows - begin, f_.scale, w->lse + begin, w->delta + begin);
    weigh_block(tiles_, w->dp, w->k.rows, w->k.ld, width_, w->mask, begin, rows, false, w->dq, ld_);
  }

  // fresh: nobody has written to these keys' gradients.
  void add_to_keys(int64_t first_key, int64_t head, int64_t n, int64_t begin, int64_t rows,
                   bool fresh, const Work& w) const {
    const auto outer = [&](const float* p, const float* x, int64_t ldx, int64_t cols,
                           const View& to, bool add) {
      if (!to) return;
      float* y = to.rank == 2 ? out_ptr(to, first_key) : out_ptr(to, first_key, head);
      outer_block(tiles_, p, w.mask, x, ldx, cols, begin, rows, n, !fresh || add, y, to.stride[0]);
    };
    outer(w.s, w.d_o, v_ld_, V_, f_.dv, f_.add_dv);
    outer(w.dp, w.q, ld_, f_.shared ? width_ : N_, f_.dk1, f_.add_dk1);
    if (!f_.shared) outer(w.dp, w.q + N_, ld_, R_, f_.dk2, f_.add_dk2);
  }

  const Exec& exec_;
  const Form& f_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
  int64_t H_, N_, R_, V_, heads_, width_, ld_, v_ld_, rows_ = 0, blocks_ = 0, kept_blocks_ = 0;
  QueryTiles queries_;
};

}  // namespace

void attention_bwd(const Exec& exec, const AttentionBwd& a) {
  if (a.q_lat.dtype != DType::kF32) return ref::attention_bwd(exec, a);
  const int64_t C = a.q_lat.dim[2];
  Backward(exec, {.q1 = a.q_lat,
                  .q2 = a.q_pe,
                  .k1 = a.kv,
                  .v = slice(a.kv, 1, 0, C),
                  .o = a.z,
                  .d_o = a.dz,
                  .lse = a.lse,
                  .sel = a.sel,
                  .dq1 = a.dq_lat,
                  .dq2 = a.dq_pe,
                  .dk1 = a.dkv,
                  .dv = a.dkv ? slice(a.dkv, 1, 0, C) : View{},
                  .add_dq1 = a.add_dq_lat,
                  .add_dq2 = a.add_dq_pe,
                  .add_dk1 = a.add_dkv,
                  .shared = true,
                  .rows = a.rows,
                  .scale = static_cast<float>(a.scale)})
      .run();
}

void attention_mha_bwd(const Exec& exec, const AttentionMhaBwd& a) {
  if (a.q_nope.dtype != DType::kF32) return ref::attention_mha_bwd(exec, a);
  // The heads' shares of dk_pe, added in the order of the heads.
  const int64_t T = a.q_pe.dim[0], H = a.q_pe.dim[1], R = a.q_pe.dim[2];
  Tensor dk_pe;
  if (a.dk_pe) dk_pe = empty(*exec.arena, DType::kF32, {T, H, R});
  Backward(exec, {.q1 = a.q_nope,
                  .q2 = a.q_pe,
                  .k1 = a.k_nope,
                  .k2 = a.k_pe,
                  .v = a.v,
                  .o = a.o,
                  .d_o = a.d_o,
                  .lse = a.lse,
                  .sel = a.sel,
                  .dq1 = a.dq_nope,
                  .dq2 = a.dq_pe,
                  .dk1 = a.dk_nope,
                  .dk2 = dk_pe,
                  .dv = a.dv,
                  .add_dq1 = a.add_dq_nope,
                  .add_dq2 = a.add_dq_pe,
                  .add_dk1 = a.add_dk_nope,
                  .add_dv = a.add_dv,
                  .rows = a.rows,
                  .scale = static_cast<float>(a.scale)})
      .run();
  if (!a.dk_pe) return;
  exec.pool->parallel_for(T, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* y = out_ptr(a.dk_pe, t);
      if (!a.add_dk_pe) std::fill_n(y, R, 0.0f);
      for (int64_t h = 0; h < H; ++h)
        for (int64_t r = 0; r < R; ++r) y[r] += row_ptr(dk_pe, t, h)[r];
    }
  });
}

}  // namespace fathom::simd
