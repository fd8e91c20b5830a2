// Lightning indexer: scoring, and scoring fused with the choice of the K best keys. A tile of query
// tokens scores one block of 64 keys after the other; each row keeps a buffer of candidates above
// the K-th best score so far, and cuts it back to K, by a histogram of theirs, when it is full. A
// score is one fma chain per dot product and one over the heads, so the choice depends on the row
// and its keys alone.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/attention_tile.h"
#include "fathom/kernels/cpu/simd/candidates.h"
#include "fathom/kernels/cpu/simd/index_codes.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {
namespace {

constexpr int64_t kTileRows = 256;          // tokens x heads that share a packed block
constexpr int64_t kLeastPart = 4 * kBlock;  // keys taken at once, when few rows use all threads

// Scores of a tile of tokens against blocks of keys.
class Scorer {
 public:
  Scorer(const View& q, const View& w, const KeyPages& keys)
      : q_(q),
        w_(w),
        keys_(keys),
        tiles_(tile_table()),
        vec_(attention_vec()),
        codes_(index_codes()),
        coded_(keys.dtype == DType::kI8) {
    J_ = q.dim[1], I_ = q.dim[2];
  }
  struct Work {
    float *q, *dots;
    uint64_t* mask;
    KeyBlock block;
    FewRows few;
    CodedQueries coded;  // in place of the others but dots, when keys are
  };
  int64_t tile_tokens() const {
    return static_cast<int64_t>(
        std::bit_floor(static_cast<uint64_t>(std::clamp<int64_t>(kTileRows / J_, 1, kBlock))));
  }
  int64_t scratch_bytes(int64_t tokens) const {
    if (coded_)
      return Scratch::bytes<float>(round_up(I_, 16)) + Scratch::bytes<float>(tokens * kBlock) +
             Scratch::bytes<std::byte>((tokens * J_ + 16) * query_bytes(I_)) +
             2 * Scratch::bytes<float>(tokens * J_);
    return Scratch::bytes<float>(tokens * J_ * I_) + Scratch::bytes<float>(tokens * J_ * kBlock) +
           Scratch::bytes<uint64_t>(tokens * J_) + KeyBlock::scratch_bytes(I_) +
           FewRows::scratch_bytes(J_, I_);
  }
  Work layout(Scratch* s, int64_t tokens) const {
    Work w{};
    if (coded_) {
      w.q = s->take<float>(round_up(I_, 16));
      w.dots = s->take<float>(tokens * kBlock);
      w.coded = {.codes = s->take<std::byte>((tokens * J_ + 16) * query_bytes(I_)),
                 .shift = s->take<int32_t>(tokens * J_),
                 .weight = s->take<float>(tokens * J_),
                 .J = J_,
                 .I = I_};
      return w;
    }
    w.q = s->take<float>(tokens * J_ * I_);
    w.dots = s->take<float>(tokens * J_ * kBlock);
    w.mask = s->take<uint64_t>(tokens * J_);
    w.block.init(s, I_);
    w.few.init(s, J_, I_);
    return w;
  }
  // Asks for keys from `begin` on meanwhile, as coding queries leaves the memory idle.
  void load_queries(const QueryTile& tile, int64_t begin, Work* w) const {
    for (int64_t i = 0; i < tile.count; ++i)
      for (int64_t j = 0; j < J_; ++j) {
        if (coded_ && i == 0) ask_half_page(tile, begin, j);
        const float* row = row_ptr(q_, tile.first + i, j);
        std::copy_n(row, I_, w->q + (coded_ ? 0 : (i * J_ + j) * I_));
        if (coded_) codes_.code_query(w->q, row_ptr(w_, tile.first + i)[j], i * J_ + j, w->coded);
      }
    if (coded_) return;
    if (tile.count == 1) w->few.set_queries(tiles_, w->q, J_, I_);
  }
  // Goes through blocks of 64 keys: next() is the position of one, -1 behind the last, and is
  // called one block ahead. f(i, scores[64], from, n) for every token i of the tile and block of n
  // keys from `from` on that it sees any of.
  template <class Next, class F>
  void score(const QueryTile& tile, Work* w, Next next, F f) const {
    if (coded_) {
      CodedWalk walk(*this, tile, next, f);
      return codes_.score(w->coded, tile.count, &walk, w->dots);
    }
    for (int64_t from = next(); from >= 0; from = next()) score_rows(tile, from, w, f);
  }

 private:
  const void* page(int64_t seq, int64_t from) const {
    return keys_.page[keys_.first_page[seq] + from / kPageTokens];
  }

  // Number `half` of the halves of coded pages from `begin` on.
  void ask_half_page(const QueryTile& tile, int64_t begin, int64_t half) const {
    const int64_t from = begin + half / 2 * kBlock, bytes = kPageTokens * keys_.stride / 2;
    if (from >= tile.pos + tile.count) return;
    const auto* p = static_cast<const char*>(page(tile.seq, from)) + half % 2 * bytes;
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at, 0, 2);
  }

  template <class F>
  void score_rows(const QueryTile& tile, int64_t from, Work* w, F f) const {
    const int64_t keys = tile.pos + tile.count, n = std::min(kBlock, keys - from);
    load_block(tile.seq, from, n, tile.count == 1, &w->block);
    const int64_t skipped = std::max<int64_t>(0, from - tile.pos), begin = skipped * J_;
    if (tile.count == 1) {
      w->few.score(tiles_, w->block, n, w->dots);
    } else {
      for (int64_t i = skipped; i < tile.count; ++i)
        std::fill_n(w->mask + i * J_, J_, low_bits(tile.pos + i + 1 - from));
      score_block(tiles_, w->q, I_, I_, w->block.panels, 16 * I_, w->mask, begin, tile.count * J_,
                  w->dots);
    }
    for (int64_t i = skipped; i < tile.count; ++i) {
      alignas(64) float scores[kBlock];
      vec_.relu_combine(w->dots + i * J_ * kBlock, J_, row_ptr(w_, tile.first + i), scores);
      f(i, scores, from, std::min(kBlock, tile.pos + i + 1 - from));
    }
  }

  template <class Next, class F>
  class CodedWalk final : public PageWalk {
   public:
    CodedWalk(const Scorer& scorer, const QueryTile& tile, const Next& next, const F& f)
        : PageWalk(tile.pos + tile.count), scorer_(scorer), tile_(tile), next_(next), f_(f) {}
    Page next() override {
      const int64_t from = next_();
      if (from < 0) return {};
      return {static_cast<const uint8_t*>(scorer_.page(tile_.seq, from)), from,
              std::max<int64_t>(0, from - tile_.pos)};
    }
    void take(const Page& page, const float* scores) override {
      for (int64_t i = page.first; i < tile_.count; ++i, scores += kBlock)
        f_(i, scores, page.pos, std::min(kBlock, tile_.pos + i + 1 - page.pos));
    }

   private:
    const Scorer& scorer_;
    const QueryTile& tile_;
    const Next& next_;
    const F& f_;
  };

  void load_block(int64_t seq, int64_t from, int64_t n, bool few, KeyBlock* block) const {
    const void* first = page(seq, from);
    if (keys_.dtype == DType::kF32 && few)
      return block->use(static_cast<const float*>(first), keys_.stride);
    if (keys_.dtype == DType::kF32)
      return block->pack(tiles_, static_cast<const float*>(first), keys_.stride, n, true);
    const int64_t stride = keys_.stride * dtype_bytes(keys_.dtype);
    const void* key[kBlock];
    for (int64_t r = 0; r < n; ++r) key[r] = static_cast<const char*>(first) + r * stride;
    if (keys_.dtype == DType::kE4M3)
      vec_.gather_e4m3(key, n, I_, keys_.coded, block->copy, block->copy_ld());
    else
      vec_.gather_bf16(key, n, I_, block->copy, block->copy_ld());
    if (few)
      block->use_copy();
    else
      block->pack_copy(tiles_, n);
  }

  const View &q_, &w_;
  const KeyPages& keys_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
  const IndexCodes& codes_;
  bool coded_;
  int64_t J_, I_;
};

class Selector {
 public:
  Selector(const Exec& exec, const IndexSelect& a) : exec_(exec), a_(a), scorer_(a.q, a.w, a.keys) {
    queries_ = cut_queries(exec, a.rows, scorer_.tile_tokens());
    for (int64_t i = 0; i < queries_.size; ++i) {
      max_tokens_ = std::max<int64_t>(max_tokens_, queries_.tile[i].count);
      max_keys_ = std::max<int64_t>(max_keys_, queries_.tile[i].pos + queries_.tile[i].count);
    }
    topk_ = std::min(a.sel.dim[1], max_keys_);
  }

  void run() {
    if (queries_.size == 0) return;
    const int64_t threads = exec_.pool->size();
    const bool split = threads > 1 && max_keys_ > 2 * kLeastPart && max_keys_ > a_.sel.dim[1] &&
                       queries_.size < 4 * threads;
    shares_ = split ? std::min(threads, (4 * threads + queries_.size - 1) / queries_.size) : 1;
    part_keys_ = split ? std::max(kLeastPart, round_up(max_keys_ / (2 * shares_), kBlock))
                       : round_up(max_keys_, kBlock);
    shared_owner_ = exec_.arena->allocate(queries_.size * static_cast<int64_t>(sizeof(Shared)));
    shared_ = new (shared_owner_.get()) Shared[static_cast<size_t>(queries_.size)];
    if (split) lists_owner_ = exec_.arena->allocate(queries_.size * shares_ * share_bytes());
    const ThreadScratch scratch(exec_, scorer_.scratch_bytes(max_tokens_) +
                                           max_tokens_ * (Candidates::bytes(topk_) + 64) +
                                           Candidates::scratch_bytes(topk_));
    exec_.pool->parallel_for(queries_.size * shares_, 1, [&](int64_t n, int64_t, int thread) {
      run_share(queries_.size - 1 - n / shares_, n % shares_, scratch.of(thread));
    });
  }

 private:
  // Of the shares in one tile: they take parts of the keys until none is left, and the last one to
  // finish joins what they found.
  struct alignas(64) Shared {
    std::atomic<int64_t> taken{0}, finished{0};
  };
  // Candidates of a share: for every token a count, positions and orders.
  int64_t share_bytes() const { return max_tokens_ * (1 + 2 * topk_) * 4; }
  int32_t* list(int64_t tile, int64_t share, int64_t token) const {
    auto* base = lists_owner_.get() + (tile * shares_ + share) * share_bytes();
    return reinterpret_cast<int32_t*>(base) + token * (1 + 2 * topk_);
  }

  void run_share(int64_t index, int64_t share, Scratch s) const {
    const QueryTile& tile = queries_.tile[index];
    const int64_t keys = tile.pos + tile.count;
    if (keys <= a_.sel.dim[1]) {  // everything is selected
      for (int64_t i = share; i < tile.count; i += shares_) write_all(tile, i);
      return;
    }
    Scorer::Work w = scorer_.layout(&s, max_tokens_);
    auto* rows = s.take<Candidates>(max_tokens_);
    auto* of_cuts = s.take<uint32_t>(Candidates::room_for(topk_));
    for (int64_t i = 0; i < max_tokens_; ++i) rows[i].init(&s, topk_, of_cuts);
    const auto take = [&] { return shared_[index].taken.fetch_add(part_keys_); };
    int64_t at = take(), end = at + part_keys_;
    const auto next = [&]() -> int64_t {
      if (at == end) at = take(), end = at + part_keys_;
      if (at >= keys) return -1;
      return std::exchange(at, at + kBlock);
    };
    scorer_.load_queries(tile, at, &w);
    scorer_.score(tile, &w, next, [&](int64_t i, const float* scores, int64_t from, int64_t n) {
      rows[i].add_block(scores, from, n);
    });
    for (int64_t i = 0; i < tile.count; ++i) rows[i].cut(topk_);
    if (shares_ > 1 && !join(index, share, rows)) return;
    for (int64_t i = 0; i < tile.count; ++i) write(tile, i, rows[i]);
  }

  // Leaves what this share found, or adds what all others did when it is the last one.
  bool join(int64_t index, int64_t share, Candidates* rows) const {
    const int64_t tokens = queries_.tile[index].count;
    for (int64_t i = 0; i < tokens; ++i) {
      int32_t* out = list(index, share, i);
      out[0] = static_cast<int32_t>(rows[i].size);
      std::copy_n(rows[i].pos, rows[i].size, out + 1);
      std::memcpy(out + 1 + topk_, rows[i].order, static_cast<size_t>(rows[i].size) * 4);
    }
    if (shared_[index].finished.fetch_add(1) + 1 < shares_) return false;
    for (int64_t i = 0; i < tokens; ++i)
      for (int64_t other = 0; other < shares_; ++other) {
        if (other == share) continue;
        const int32_t* in = list(index, other, i);
        rows[i].merge(in + 1, in + 1 + topk_, in[0]);
        rows[i].cut(topk_);
      }
    return true;
  }

  int32_t* output(const QueryTile& tile, int64_t i) const {
    return static_cast<int32_t*>(a_.sel.data) + (tile.first + i) * a_.sel.stride[0];
  }
  void write(const QueryTile& tile, int64_t i, const Candidates& c) const {
    int32_t* out = output(tile, i);
    std::fill(std::copy_n(c.pos, c.size, out), out + a_.sel.dim[1], -1);
  }
  void write_all(const QueryTile& tile, int64_t i) const {
    int32_t* out = output(tile, i);
    for (int32_t k = 0; k < a_.sel.dim[1]; ++k) out[k] = k <= tile.pos + i ? k : -1;
  }

  const Exec& exec_;
  const IndexSelect& a_;
  Scorer scorer_;
  QueryTiles queries_;
  std::shared_ptr<std::byte> shared_owner_, lists_owner_;
  Shared* shared_ = nullptr;  // [tiles]
  int64_t max_tokens_ = 0, max_keys_ = 0, topk_ = 0, shares_ = 1, part_keys_ = 0;
};

bool takes(const View& q, const KeyPages& keys) {
  return q.dtype == DType::kF32 && keys.dtype != DType::kF64;
}

}  // namespace

void index_select(const Exec& exec, const IndexSelect& a) {
  if (!takes(a.q, a.keys)) return ref::index_select(exec, a);
  Selector(exec, a).run();
}

void index_code(const Exec& exec, const IndexCode& a) {
  if (a.x.dtype != DType::kF32) return ref::index_code(exec, a);
  const IndexCodes& codes = index_codes();
  const int64_t I = a.x.dim[1], padded = round_up(I, 16);
  const std::shared_ptr<std::byte> owner = exec.arena->allocate(5 * padded);
  auto* row = reinterpret_cast<float*>(owner.get());
  auto* code = reinterpret_cast<int8_t*>(row + padded);
  std::fill_n(code, padded, int8_t{0});
  auto* page = static_cast<uint8_t*>(a.page);
  for (int64_t m = 0; m < a.x.dim[0]; ++m) {
    std::copy_n(row_ptr(a.x, m), I, row);
    const float scale = codes.code_row(row, I, code);
    for (int64_t i = 0; i < I; i += 4)
      for (int64_t b = 0; b < 4; ++b)
        page[ref::index_code_at(I, a.first + m, i) + b] = static_cast<uint8_t>(code[i + b] + 128);
    std::memcpy(page + ref::index_scales_at(I) + (a.first + m) * 4, &scale, sizeof scale);
  }
}

void index_scores(const Exec& exec, const IndexScores& a) {
  if (!takes(a.q, a.keys)) return ref::index_scores(exec, a);
  const Scorer scorer(a.q, a.w, a.keys);
  const QueryTiles queries = cut_queries(exec, a.rows, scorer.tile_tokens());
  const ThreadScratch scratch(exec, scorer.scratch_bytes(scorer.tile_tokens()));
  exec.pool->parallel_for(queries.size, 1, [&](int64_t n, int64_t, int thread) {
    const QueryTile& tile = queries.tile[n];
    FM_CHECK(tile.pos + tile.count <= a.scores.dim[1], "{} keys, room for {}",
             tile.pos + tile.count, a.scores.dim[1]);
    Scratch s = scratch.of(thread);
    Scorer::Work w = scorer.layout(&s, scorer.tile_tokens());
    scorer.load_queries(tile, 0, &w);
    for (int64_t i = 0; i < tile.count; ++i)
      std::fill_n(out_ptr(a.scores, tile.first + i), a.scores.dim[1], 0.0f);
    int64_t at = 0;
    const auto next = [&]() -> int64_t {
      if (at >= tile.pos + tile.count) return -1;
      return std::exchange(at, at + kBlock);
    };
    scorer.score(tile, &w, next, [&](int64_t i, const float* scores, int64_t from, int64_t size) {
      std::copy_n(scores, size, out_ptr(a.scores, tile.first + i) + from);
    });
  });
}

}  // namespace fathom::simd
