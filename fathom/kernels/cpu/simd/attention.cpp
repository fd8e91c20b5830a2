// Attention over the shared latent (absorbed form). A tile is some query tokens times all heads, so
// that one packed block of keys serves many rows.
//
// Order of summation, the same for every tile, chunking, thread count and instruction set:
//   score    one fma chain over the key's numbers, ascending, then times scale
//   block    64 keys counted from position 0, or from the first selected key; online softmax over
//   the
//            blocks of a chunk; z adds keys in ascending order in one fma chain
//   chunk    4 blocks; the states of the chunks are merged in ascending order
// Latents in integer codes have a score and a sum of their own (attention_codes.h), the same on
// every instruction set. So have latents of bf16 where there is a matrix unit for bf16
// (attention_bf16.h): their bits depend on whether the machine has one. Both go by
// attention_chunk.h.
// Chunks exist so that a single decoded token can use all threads. Two neighbours that gather
// mostly the same keys are scored together (attention_pair.h), with the bits each has alone.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/attention_bf16.h"
#include "fathom/kernels/cpu/simd/attention_codes.h"
#include "fathom/kernels/cpu/simd/attention_few.h"
#include "fathom/kernels/cpu/simd/attention_keys.h"
#include "fathom/kernels/cpu/simd/attention_work.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {
namespace {

constexpr int64_t kTileRows = 256;  // query rows of a dense tile, if its numbers stay in L2
constexpr int64_t kTileNumbers = 96 * 1024;
constexpr int64_t kTilesPerThread = 4;        // with fewer, chunks are shared out
constexpr int64_t kPairStep = 256;            // keys that a pair scores before it weighs them
constexpr int64_t kJoinedAlone = 128 * 1024;  // bytes of states that one thread joins

class Forward {
 public:
  Forward(const Exec& exec, const Attention& a)
      : exec_(exec),
        a_(a),
        tiles_(tile_table()),
        vec_(attention_vec()),
        few_(attention_few()),
        pair_(attention_pair()),
        rows_(a.keys, a.q_lat.dim[2], a.q_pe.dim[2]) {
    d_ = {.H = a.q_lat.dim[1], .C = a.q_lat.dim[2], .R = a.q_pe.dim[2]};
    d_.width = d_.C + d_.R;
    coded_ = a.keys.dtype == DType::kI8;
    d_.way = coded_                         ? &attention_codes()
             : a.keys.dtype == DType::kBF16 ? attention_bf16()
                                            : nullptr;
    d_.z_ld = d_.way ? d_.way->z_cols(d_.C) : round_up(d_.C, 16);
    in_place_ = d_.H <= few_.max_heads && d_.C % few_.step == 0 && d_.width % few_.step == 0 &&
                a.keys.dtype != DType::kE4M3;
    const int64_t rows = std::min(kTileRows, std::max(kTileNumbers / d_.width, int64_t{16}));
    const int64_t tokens = std::clamp<int64_t>(rows / d_.H, 1, kBlock);
    queries_ = cut_queries(exec, a.rows,
                           static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(tokens))));
    if (a.sel) split_sparse();
    for (int64_t i = 0; i < queries_.size; ++i) {
      max_tokens_ = std::max<int64_t>(max_tokens_, queries_.tile[i].count);
      max_keys_ = std::max(max_keys_, num_keys(queries_.tile[i], queries_.tile[i].count - 1));
    }
  }

  void run() {
    if (queries_.size == 0) return;
    const ThreadScratch scratch(exec_, TileWork::bytes(d_, max_tokens_ * d_.H));
    const bool split = exec_.pool->size() > 1 && max_keys_ > kChunk &&
                       queries_.size < kTilesPerThread * exec_.pool->size();
    if (split) return run_split(scratch);
    exec_.pool->parallel_for(queries_.size, 1, [&](int64_t i, int64_t, int thread) {
      const QueryTile tile = queries_.tile[queries_.size - 1 - i];  // the long ones first
      TileWork w(scratch.of(thread), d_, max_tokens_ * d_.H);
      if (pair(tile)) return run_pair(tile, &w);
      run_tile(tile, &w);
    });
  }

 private:
  // Some token of the tile does not attend to all its keys. Else the tile is a dense one.
  bool sparse(const QueryTile& tile) const {
    if (!a_.sel) return false;
    if (tile.pos + tile.count > a_.sel.dim[1]) return true;
    const auto* last = static_cast<const int32_t*>(a_.sel.data) + tile.pos;
    for (int64_t i = 0; i < tile.count; ++i)
      if (last[(tile.first + i) * a_.sel.stride[0] + i] < 0) return true;
    return false;
  }
  // Whether chunks are computed with in another way than the f32 chain. Of bf16 that is for tokens
  // with more than a chunk of keys: the unit's blocks are too large for others. Tiles end where
  // chunks do, so that the row alone decides and not its tile.
  bool by_chunks(const QueryTile& tile) const {
    return d_.way && (coded_ || num_keys(tile, 0) > kChunk);
  }
  // Two tokens that gather their keys.
  bool pair(const QueryTile& tile) const {
    return d_.pair_keys > 0 && tile.count == 2 && sparse(tile);
  }
  // Whether keys are read where they are.
  bool in_place(const QueryTile& tile) const {
    return in_place_ && (tile.count == 1 || pair(tile));
  }
  // Tokens that gather their own keys become tiles of their own, or pairs where they are many.
  void split_sparse() {
    const auto tiles_of = [&](int32_t tokens) {
      int64_t size = 0;
      for (int64_t i = 0; i < queries_.size; ++i)
        size += sparse(queries_.tile[i]) ? (queries_.tile[i].count + tokens - 1) / tokens : 1;
      return size;
    };
    const bool pairs = in_place_ && !d_.way && pair_ && 2 * d_.H <= few_.max_heads &&
                       tiles_of(2) >= kTilesPerThread * exec_.pool->size();
    const int32_t tokens = pairs ? 2 : 1;
    if (pairs) d_.pair_keys = a_.sel.dim[1];
    const int64_t size = tiles_of(tokens);
    const std::shared_ptr<std::byte> owner =
        exec_.arena->allocate(size * static_cast<int64_t>(sizeof(QueryTile)) + 64);
    auto* out = reinterpret_cast<QueryTile*>(owner.get());
    for (int64_t i = 0; i < queries_.size; ++i) {
      const QueryTile& tile = queries_.tile[i];
      if (!sparse(tile)) *out++ = tile;
      for (int32_t t = 0; sparse(tile) && t < tile.count; t += tokens)
        *out++ = {.seq = tile.seq,
                  .first = tile.first + t,
                  .count = std::min(tokens, tile.count - t),
                  .pos = tile.pos + t};
    }
    queries_ = {.owner = owner, .tile = out - size, .size = size};
  }
  // Keys that token i of the tile attends to.
  int64_t num_keys(const QueryTile& tile, int64_t i) const {
    if (!sparse(tile)) return tile.pos + i + 1;
    return selected_keys(a_.sel, tile.first + i).size;
  }
  void run_tile(const QueryTile& tile, TileWork* w) const {
    load_queries(tile, w);
    ask_first(tile, 0, w);
    const int64_t keys = num_keys(tile, tile.count - 1);
    if (keys <= kChunk) {
      run_chunk(tile, 0, w, w->chunk);
      return finish(tile, 0, tile.count * d_.H, w->chunk);
    }
    w->total.clear(tile.count * d_.H);
    for (int64_t base = 0; base < keys; base += kChunk) {
      announce(tile, base + kChunk, w);
      run_chunk(tile, base, w, w->chunk);
      std::swap(w->key, w->later);
      merge(0, tile.count * d_.H, w->total, w->chunk);
    }
    finish(tile, 0, tile.count * d_.H, w->total);
  }
  // Few tiles and many keys: every (tile, chunk) is a task of its own.
  void run_split(const ThreadScratch& scratch) {
    const int64_t rows = max_tokens_ * d_.H, chunks = (max_keys_ + kChunk - 1) / kChunk;
    const int64_t each = SoftmaxState::bytes(rows, d_.z_ld), total = each * chunks * queries_.size;
    const std::shared_ptr<std::byte> block = exec_.arena->allocate(total);
    const auto state = [&](int64_t n) {
      Scratch s(block.get() + n * each, each);
      SoftmaxState out;
      out.init(&s, rows, d_.z_ld);
      return out;
    };
    // A thread claims its next chunk before it computes one, so that it can ask for the next rows.
    const int64_t tasks = chunks * queries_.size;
    const auto tile_of = [&](int64_t n) -> const QueryTile& { return queries_.tile[n / chunks]; };
    std::atomic<int64_t> claimed{0};
    const auto compute = [&](int64_t, int64_t, int thread) {
      int64_t now = claimed.fetch_add(1), loaded = -1;
      TileWork w(scratch.of(thread), d_, rows);
      for (int64_t later; now < tasks; now = later) {
        if (loaded != now / chunks) load_queries(tile_of(now), &w);
        if (loaded < 0) ask_first(tile_of(now), now % chunks * kChunk, &w);
        loaded = now / chunks;
        later = claimed.fetch_add(1);
        if (later < tasks) announce(tile_of(later), later % chunks * kChunk, &w);
        run_chunk(tile_of(now), now % chunks * kChunk, &w, state(now));
        std::swap(w.key, w.later);
      }
    };
    // Of few numbers, threads share only those of several tiles.
    const int64_t threads = exec_.pool->size();
    const int64_t parts = total > kJoinedAlone ? threads : 1;
    const auto join = [&](int64_t n, int64_t, int) {
      const QueryTile& tile = queries_.tile[n / parts];
      const int64_t all = tile.count * d_.H, part = n % parts, begin = all * part / parts,
                    end = all * (part + 1) / parts;
      const SoftmaxState first = state(n / parts * chunks);
      for (int64_t c = 1; c < chunks; ++c) merge(begin, end, first, state(n / parts * chunks + c));
      finish(tile, begin, end, first);
    };
    const ThreadPool::Phase phases[] = {{threads, 1, compute}, {queries_.size * parts, 1, join}};
    exec_.pool->parallel_phases(phases);
  }

  void load_queries(const QueryTile& tile, TileWork* w) const {
    float* q = w->q;
    for (int64_t t = tile.first; t < tile.first + tile.count; ++t)
      for (int64_t h = 0; h < d_.H; ++h, q += d_.width) {
        std::copy_n(row_ptr(a_.q_lat, t, h), d_.C, q);
        std::copy_n(row_ptr(a_.q_pe, t, h), d_.R, q + d_.C);
      }
    if (by_chunks(tile)) return load_groups(tile.count * d_.H, w);
    if (tile.count > 1 && !pair(tile)) return;
    if (!in_place_) return w->few.set_queries(tiles_, w->q, d_.H, d_.width);
    std::copy_n(w->q, tile.count * d_.H * d_.width, w->spread);
    tiles_.transpose(w->spread, d_.width, d_.width, w->packed);
  }

  void load_groups(int64_t rows, TileWork* w) const {
    const int64_t each = d_.way->rows;
    for (int64_t r = 0; r < rows; r += each)
      d_.way->load_queries(w->q + r * d_.width, d_.width, std::min(each, rows - r), d_.C, d_.R,
                           w->keys.group(r, each));
  }

  // Softmax state over keys base .. base + kChunk - 1 of each row.
  void run_chunk(const QueryTile& tile, int64_t base, TileWork* w,
                 const SoftmaxState& state) const {
    const int64_t rows = tile.count * d_.H;
    state.clear(rows);
    const int64_t keys = std::min(num_keys(tile, tile.count - 1), base + kChunk);
    if (keys <= base) return;
    if (by_chunks(tile)) return run_way(tile, base, keys, w, state);
    if (in_place(tile)) return run_few(base, keys, w, state);
    for (int64_t from = base; from < keys; from += kBlock) {
      const int64_t n = std::min(kBlock, keys - from);
      const int64_t begin = mask_rows(tile, from, keys, w->mask);
      const bool few = tile.count == 1;
      if (sparse(tile))
        rows_.gather(tile.seq, selected_keys(a_.sel, tile.first).pos + from, n, few, &w->block);
      else
        rows_.load(tile.seq, from, n, few, &w->block);
      const KeyBlock& k = w->block;
      if (few)
        w->few.score(tiles_, k, n, w->s);
      else
        score_block(tiles_, w->q, d_.width, d_.width, k.panels, 16 * d_.width, w->mask, begin, rows,
                    w->s);
      vec_.softmax_block(w->s + begin * kBlock, w->mask + begin, rows - begin,
                         static_cast<float>(a_.scale), state.max + begin, state.sum + begin,
                         w->alpha + begin);
      if (from > base)
        vec_.scale_rows(state.z + begin * d_.z_ld, d_.z_ld, d_.z_ld, rows - begin,
                        w->alpha + begin);
      weigh_block(tiles_, w->s, k.rows, k.ld, d_.C, w->mask, begin, rows, from == base, state.z,
                  d_.z_ld);
    }
  }

  // What the rows see of a block. Returns the first row that sees anything.
  int64_t mask_rows(const QueryTile& tile, int64_t from, int64_t keys, uint64_t* mask) const {
    int64_t begin = tile.count * d_.H;
    for (int64_t i = tile.count - 1; i >= 0; --i) {
      const int64_t seen = sparse(tile) ? keys : tile.pos + i + 1;
      if (seen <= from) break;
      begin = i * d_.H;
      std::fill_n(mask + begin, d_.H, low_bits(seen - from));
    }
    return begin;
  }

  // Finds the keys of the chunk at `base`, which follows the one in use. Several tokens read rows
  // in order, which the processor itself asks for; the unit's copies wait for many rows at once.
  void announce(const QueryTile& tile, int64_t base, TileWork* w) const {
    if (!by_chunks(tile) && !in_place(tile)) return;
    const int64_t keys = std::min(num_keys(tile, tile.count - 1), base + kChunk);
    const int32_t* sel = sparse(tile) ? selected_keys(a_.sel, tile.first).pos : nullptr;
    for (int64_t n = base; n < keys; ++n) w->later[n - base] = rows_.at(tile.seq, sel ? sel[n] : n);
    if (by_chunks(tile) && !coded_) return;
    w->feed.then(w->later, tile.count > 1 ? 0 : std::max<int64_t>(keys - base, 0));
  }
  // The same of a thread's first chunk; asks for half of its first block at once.
  void ask_first(const QueryTile& tile, int64_t base, TileWork* w) const {
    w->feed.start(rows_.bytes());
    announce(tile, base, w);
    w->feed.ask(kBlock / 2 * ((rows_.bytes() + 63) / 64));
    std::swap(w->key, w->later);
  }

  // The same as run_chunk, keys base .. keys - 1, in the way of chunks.
  void run_way(const QueryTile& tile, int64_t base, int64_t keys, TileWork* w,
               const SoftmaxState& state) const {
    const ChunkProducts& way = *d_.way;
    const int64_t rows = tile.count * d_.H, blocks = (keys - base + kBlock - 1) / kBlock;
    const int64_t ld = rows * kBlock;  // of a block's scores
    KeyChunk k = w->keys.keys;
    k.key = w->key;
    k.size = keys - base;
    k.in_place = in_place(tile);
    k.feed = &w->feed;
    k.asked = rows > way.rows ? 1 : 2;
    int64_t begin[kChunkBlocks];
    for (int64_t b = 0; b < blocks; ++b) {
      begin[b] = mask_rows(tile, base + b * kBlock, keys, w->mask);
      way.load_block(&k, b);
      for (int64_t r = begin[b] / way.rows * way.rows; r < rows; r += way.rows)
        way.score(w->keys.group(r, way.rows), k, b, std::min(way.rows, rows - r),
                  w->s + b * ld + r * kBlock);
      vec_.softmax_block(w->s + b * ld + begin[b] * kBlock, w->mask + begin[b], rows - begin[b],
                         static_cast<float>(a_.scale), state.max + begin[b], state.sum + begin[b],
                         w->alpha + b * rows + begin[b]);
    }
    // alpha[b] is what the sums of the blocks before b have to be multiplied with.
    for (int64_t b = blocks - 1; b > 0; --b) {
      float *alpha = w->alpha + b * rows, *before = alpha - rows;
      std::fill_n(alpha, begin[b], 1.0f);
      vec_.scale_rows(w->s + (b - 1) * ld, kBlock, kBlock, rows, alpha);
      for (int64_t r = 0; r < rows; ++r) before[r] *= alpha[r];
    }
    for (int64_t r = begin[0] / way.rows * way.rows; r < rows; r += way.rows) {
      const int64_t end = std::min(r + way.rows, rows);
      k.size = 0;
      for (int64_t b = 0; b < blocks && begin[b] < end; ++b) {
        if (begin[b] > r)
          std::fill(w->s + b * ld + r * kBlock, w->s + b * ld + begin[b] * kBlock, 0.0f);
        k.size = std::min((b + 1) * kBlock, keys - base);
      }
      way.weigh(w->s + r * kBlock, ld, end - r, k, state.z + r * d_.z_ld, d_.z_ld);
    }
  }

  // The same of one token, keys base .. keys - 1, without copies of them.
  void run_few(int64_t base, int64_t keys, TileWork* w, const SoftmaxState& state) const {
    for (int64_t from = base; from < keys; from += kBlock) {
      const int64_t n = std::min(kBlock, keys - from);
      const void* const* key = w->key + (from - base);
      few_.score(w->packed, d_.H, d_.width, key, a_.keys.dtype, n, &w->feed, w->s, kBlock);
      add_block(key, n, from == base, w, state);
    }
  }
  // A block of a token whose scores are there.
  void add_block(const void* const* key, int64_t n, bool first, TileWork* w,
                 const SoftmaxState& state) const {
    std::fill_n(w->mask, d_.H, low_bits(n));
    vec_.softmax_block(w->s, w->mask, d_.H, static_cast<float>(a_.scale), state.max, state.sum,
                       w->alpha);
    few_.weigh(w->s, first ? nullptr : w->alpha, d_.H, key, a_.keys.dtype, n, d_.C, &w->feed,
               state.z, d_.z_ld);
  }

  // Scores the keys of both tokens for both at once and those of one for that one, then adds each
  // one's blocks in the order that they have when it is alone.
  void run_pair(const QueryTile& tile, TileWork* w) const {
    const Selected sel[] = {selected_keys(a_.sel, tile.first),
                            selected_keys(a_.sel, tile.first + 1)};
    PairKeys k(w->pair, d_.H, d_.pair_keys);
    const int64_t least = std::max(sel[0].size, sel[1].size) * 3 / 4;  // it pays from there
    const int64_t shared = pair_->find_shared(sel, least, {k.token[0].bits, k.token[1].bits});
    if (shared < least) {
      for (const int32_t t : {0, 1}) run_tile({tile.seq, tile.first + t, 1, tile.pos + t}, w);
      return;
    }
    load_queries(tile, w);
    w->total.clear(2 * d_.H);
    for (const int t : {0, 1}) {
      PairKeys::Token& token = k.token[t];
      token.size = sel[t].size;
      for (int64_t n = 0; n < token.size; ++n) token.key[n] = rows_.at(tile.seq, sel[t].pos[n]);
      pair_->split(token.key, token.size, token.bits, k.both, token.own);
    }
    const auto score = [&](const void* const* key, int64_t begin, int64_t end, int64_t row,
                           int64_t rows, float* s) {
      few_.score(w->packed + row, rows, d_.width, key + begin, a_.keys.dtype, end - begin, &w->feed,
                 s + row * k.ld + begin, k.ld);
    };
    const auto& [a, b] = k.token;
    w->feed.start(rows_.bytes());
    w->feed.then(a.key, std::min(a.size, kPairStep));
    for (bool more = true; more;) {
      more = k.go_on(kPairStep);
      w->feed.then(a.key + a.end, std::min(a.size - a.end, kPairStep));
      score(k.both, a.begin_shared, a.end_shared, 0, 2 * d_.H, k.of_both);
      for (const int64_t t : {0, 1}) {
        const PairKeys::Token& token = k.token[t];
        score(token.own, token.begin_own(), token.end_own(), t * d_.H, d_.H, k.of_own);
      }
      w->feed.then(b.own + b.end_own(), std::min(b.size - shared - b.end_own(), kPairStep / 2));
      for (const int64_t t : {0, 1}) add_scored(t, k, w);
    }
    finish(tile, 0, 2 * d_.H, w->total);
  }

  // Adds the blocks in use of a token of a pair.
  void add_scored(int64_t t, const PairKeys& k, TileWork* w) const {
    const SoftmaxState total = w->total.from(t * d_.H, d_.z_ld),
                       chunk = w->chunk.from(t * d_.H, d_.z_ld);
    const PairKeys::Token& token = k.token[t];
    const float *of_both = k.of_both + t * d_.H * k.ld + token.begin_shared,
                *of_own = k.of_own + t * d_.H * k.ld + token.begin_own();
    for (int64_t at = token.begin; at < token.end;) {
      const int64_t n = std::min(kBlock, token.end - at);
      const uint64_t bits = token.bits[at / kBlock];
      pair_->lay_out(of_both, of_own, k.ld, d_.H, bits, w->s);
      of_both += std::popcount(bits);
      of_own += n - std::popcount(bits);
      const bool first = at % kChunk == 0;
      if (first) chunk.clear(d_.H);
      add_block(token.key + at, n, first, w, chunk);
      at += n;
      if (at % kChunk == 0 || at == token.size) merge(0, d_.H, total, chunk);
    }
  }

  // Of rows begin .. end - 1 of a tile.
  void merge(int64_t begin, int64_t end, const SoftmaxState& into, const SoftmaxState& from) const {
    vec_.merge_rows(into.z + begin * d_.z_ld, from.z + begin * d_.z_ld, d_.z_ld, d_.z_ld,
                    end - begin, into.max + begin, into.sum + begin, from.max + begin,
                    from.sum + begin);
  }
  void finish(const QueryTile& tile, int64_t begin, int64_t end, const SoftmaxState& state) const;

  const Exec& exec_;
  const Attention& a_;
  const TileTable& tiles_;
  const AttentionVec& vec_;
  const AttentionFew& few_;
  const AttentionPair* pair_;
  const KeyRows rows_;
  bool coded_ = false;     // latents in integer codes
  bool in_place_ = false;  // a token alone reads keys where they are
  AttentionShape d_{};
  QueryTiles queries_;
  int64_t max_tokens_ = 0, max_keys_ = 0;
};

void Forward::finish(const QueryTile& tile, int64_t begin, int64_t end,
                     const SoftmaxState& state) const {
  const bool by_chunk = by_chunks(tile), few = !by_chunk && in_place(tile);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t t = tile.first + r / d_.H, h = r % d_.H;
    float* z = state.z + r * d_.z_ld;
    if (by_chunk) d_.way->in_order(z, d_.z_ld);
    if (few) few_.in_order(z, a_.keys.dtype, d_.C);
    vec_.divide(z, state.sum[r], d_.C, out_ptr(a_.z, t, h));
    if (a_.lse) out_ptr(a_.lse, t)[h] = state.max[r] + std::log(state.sum[r]);
  }
}

}  // namespace

void latent_code(const Exec& exec, const LatentCode& a) {
  if (a.x.dtype != DType::kF32) return ref::latent_code(exec, a);
  const int64_t rest = a.x.dim[1] - a.coded, bytes = coded_row_bytes(a.coded, rest);
  for (int64_t m = 0; m < a.x.dim[0]; ++m) {
    char* row = static_cast<char*>(a.rows) + m * bytes;
    const float* x = row_ptr(a.x, m);
    for (int64_t i = 0; i < a.coded; i += 128) {
      const float scale = code_latents(x + i, std::min(int64_t{128}, a.coded - i),
                                       reinterpret_cast<int8_t*>(row) + i);
      std::memcpy(row + coded_scales_at(a.coded) + i / 128 * 4, &scale, sizeof scale);
    }
    auto* half = reinterpret_cast<bf16*>(row + coded_rest_at(a.coded));
    for (int64_t i = 0; i < rest; ++i) half[i] = to_bf16(x[a.coded + i]);
  }
}

void attention(const Exec& exec, const Attention& a) {
  if (a.q_lat.dtype != DType::kF32 || a.keys.dtype == DType::kF64) return ref::attention(exec, a);
  Forward(exec, a).run();
}

}  // namespace fathom::simd
