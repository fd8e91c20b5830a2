// Rotary embedding: a table of cosines and sines for the positions of the call, then one pass over
// the heads.
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/rope.cpp"
#include "hwy/foreach_target.h"

#include "fathom/kernels/cpu/simd/rows.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

// y (+)= x c + other s for the elements of one head, where `other` is the partner of each element
// and s carries the sign. Interleaved: c and s are [R] with each frequency twice. Halves: c and s
// are [R/2], s of the second half.
void rotate_head(const float* x, float* y, const float* c, const float* s, int64_t R, bool halves,
                 bool add) {
  if (halves) {
    const int64_t half = R / 2;
    sweep(half, [&](int64_t i, auto part) HWY_ATTR {
      const V16 x0 = load16(x + i, part), x1 = load16(x + half + i, part);
      const V16 cs = load16(c + i, part), sn = load16(s + i, part);
      const V16 y0 = fused(x0, cs, x1 * (zero16() - sn)), y1 = fused(x1, cs, x0 * sn);
      store16(add ? load16(y + i, part) + y0 : y0, y + i, part);
      store16(add ? load16(y + half + i, part) + y1 : y1, y + half + i, part);
    });
    return;
  }
  sweep(R, [&](int64_t i, auto part) HWY_ATTR {
    const V16 v = load16(x + i, part);
    const V16 r = fused(v, load16(c + i, part), swap_pairs16(v) * load16(s + i, part));
    store16(add ? load16(y + i, part) + r : r, y + i, part);
  });
}

// `tables` [.., 2R]: c then s of one position; row t uses entry index[t].
void rope_rows(const Rope& a, const float* tables, const int32_t* index, int64_t begin,
               int64_t end) {
  const int64_t H = a.x.dim[1], R = a.x.dim[2];
  for (int64_t t = begin; t < end; ++t) {
    const float* c = tables + index[t] * 2 * R;
    for (int64_t h = 0; h < H; ++h)
      rotate_head(row(a.x, t) + h * a.x.stride[1], row(a.y, t) + h * a.y.stride[1], c, c + R, R,
                  a.pairs == RopePairs::kHalves, a.add);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>
#include <span>
#include <vector>

#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom::simd {

HWY_EXPORT(rope_rows);

namespace {

struct Turn {
  double c, s;
};
Turn turn(double angle) { return {std::cos(angle), std::sin(angle)}; }

constexpr int32_t kBlock = 64;  // positions that share one pair of slow functions

// The tables of positions first, first + 1, ..: the angle of a position is the sum of a multiple of
// 64 steps and a rest, whatever the call holds, so that a row alone gets the same bits.
class Tables {
 public:
  explicit Tables(const Rope& a) : a_(a), half_(a.x.dim[2] / 2) {}

  // Entries of `count` positions from `first` on; out [count, 2R].
  void fill(int32_t first, int64_t count, float* out) const {
    for (int64_t i = 0; i < half_; ++i) {
      const double f = a_.inv_freq[i];
      const int32_t rests = static_cast<int32_t>(std::min<int64_t>(count, kBlock));
      Turn rest[kBlock];
      for (int32_t k = 0; k < rests; ++k) {
        const int32_t p = (first + k) & (kBlock - 1);
        rest[p] = turn(static_cast<double>(p) * f);
      }
      Turn block{};
      for (int64_t k = 0; k < count; ++k) {
        const int32_t pos = first + static_cast<int32_t>(k), p = pos & (kBlock - 1);
        if (k == 0 || p == 0) block = turn(static_cast<double>(pos - p) * f);
        put(i,
            {block.c * rest[p].c - block.s * rest[p].s, block.s * rest[p].c + block.c * rest[p].s},
            out + k * 4 * half_);
      }
    }
  }

 private:
  void put(int64_t i, Turn t, float* out) const {
    const float c = static_cast<float>(a_.amplitude * t.c);
    const float s = static_cast<float>(a_.inverse ? -a_.amplitude * t.s : a_.amplitude * t.s);
    float* sines = out + 2 * half_;
    if (a_.pairs == RopePairs::kHalves) {
      out[i] = c, sines[i] = s;
    } else {
      out[2 * i] = out[2 * i + 1] = c;
      sines[2 * i] = -s, sines[2 * i + 1] = s;
    }
  }
  const Rope& a_;
  const int64_t half_;
};

// The last tables of this thread: every layer turns by the same angles, and sines cost more than
// the products around them.
class LastTables {
 public:
  // Tables of `count` positions from `first` on, [count, 2R].
  const float* get(const Rope& a, int32_t first, int64_t count) {
    const int64_t half = a.x.dim[2] / 2;
    for (const Entry& e : entries_)
      if (e.first == first && e.count == count && e.pairs == a.pairs && e.inverse == a.inverse &&
          e.amplitude == a.amplitude &&
          std::ranges::equal(e.inv_freq, std::span(a.inv_freq, static_cast<size_t>(half))))
        return e.tables.data();
    Entry& e = entries_[next_++ % entries_.size()];
    e = {first, count, a.pairs, a.inverse, a.amplitude, {a.inv_freq, a.inv_freq + half}, {}};
    e.tables.resize(static_cast<size_t>(count * 4 * half));
    Tables(a).fill(first, count, e.tables.data());
    return e.tables.data();
  }

 private:
  struct Entry {
    int32_t first = 0;
    int64_t count = 0;
    RopePairs pairs = RopePairs::kInterleaved;
    bool inverse = false;
    double amplitude = 0;
    std::vector<double> inv_freq;
    std::vector<float> tables;
  };
  std::array<Entry, 4> entries_;
  size_t next_ = 0;
};

constexpr int64_t kKeptNumbers = 32 * 1024;

}  // namespace

void rope(const Exec& exec, const Rope& a) {
  if (a.x.dtype != DType::kF32) return ref::rope(exec, a);
  const int64_t T = a.x.dim[0], H = a.x.dim[1], R = a.x.dim[2];
  if (T == 0) return;
  const auto [low, high] = std::minmax_element(a.pos, a.pos + T);
  const int32_t first = *low;
  const int64_t span = int64_t{*high} - first + 1;
  // Packed sequences repeat positions: one entry per position. Scattered positions: one per row.
  const bool by_position = span <= T;
  const int64_t entries = by_position ? span : T;
  int32_t few[kBlock];  // of a decoded token: a request for memory costs as much as its rotation
  const auto index_block =
      T <= kBlock ? nullptr : exec.arena->allocate(T * static_cast<int64_t>(sizeof(int32_t)));
  int32_t* index = T <= kBlock ? few : reinterpret_cast<int32_t*>(index_block.get());
  for (int64_t t = 0; t < T; ++t)
    index[t] = by_position ? a.pos[t] - first : static_cast<int32_t>(t);
  const auto turn_rows = [&](const float* tables) {
    for_rows(exec, T, H * R, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(rope_rows)(a, tables, index, begin, end);
    });
  };
  if (by_position && span * R <= kKeptNumbers) {
    static thread_local LastTables last;
    return turn_rows(last.get(a, first, span));
  }
  const auto table_block =
      exec.arena->allocate(entries * 2 * R * static_cast<int64_t>(sizeof(float)));
  float* tables = reinterpret_cast<float*>(table_block.get());
  const Tables fill(a);
  if (by_position) {
    // Each range pays for one block of slow functions, so there are as many ranges as threads.
    const int64_t range =
        std::max<int64_t>(4 * kBlock, (span + exec.pool->size() - 1) / exec.pool->size());
    exec.pool->parallel_for(span, range, [&](int64_t begin, int64_t end, int) {
      fill.fill(first + static_cast<int32_t>(begin), end - begin, tables + begin * 2 * R);
    });
  } else {
    for_rows(exec, T, 64 * R, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) fill.fill(a.pos[t], 1, tables + t * 2 * R);
    });
  }
  turn_rows(tables);
}

}  // namespace fathom::simd
#endif
