// Splits the rows of a kernel over the pool, and sums over rows in an order that the number of
// threads does not change.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/kernels.h"
#include "fathom/tensor/arena.h"

namespace fathom::simd {

inline float* row(const View& v, int64_t t) {
  return static_cast<float*>(v.data) + t * v.stride[0];
}

// Ask for what a walk over adjoining rows reads, or writes, 2 KB later.
inline void ask_ahead(const float* p) { __builtin_prefetch(p + 512); }
inline void ask_ahead(float* p) { __builtin_prefetch(p + 512, 1); }

// A fork costs about a microsecond: a chunk should be worth several.
inline constexpr int64_t kChunkElements = 8192;

// fn(begin, end) over ranges of rows; results must not depend on how rows are cut.
template <class F>
void for_rows(const Exec& exec, int64_t num_rows, int64_t elements_per_row, const F& fn) {
  const int64_t grain =
      std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, elements_per_row));
  if (num_rows <= grain) {
    if (num_rows > 0) fn(0, num_rows);
    return;
  }
  exec.pool->parallel_for(num_rows, grain,
                          [&](int64_t begin, int64_t end, int) { fn(begin, end); });
}

// Rows whose sum is formed by one thread; chunks are added in ascending order.
inline constexpr int64_t kSumRows = 64;

// fn(begin, end, sums) adds rows begin .. end-1 to sums [vectors * D], which starts at zero;
// done(total) gets the total.
template <class F, class G>
void sum_over_chunks(const Exec& exec, int64_t num_rows, int64_t D, int64_t vectors, const F& fn,
                     const G& done) {
  const int64_t chunks = std::max<int64_t>(1, (num_rows + kSumRows - 1) / kSumRows),
                size = vectors * D;
  const std::shared_ptr<std::byte> block =
      exec.arena->allocate(chunks * size * static_cast<int64_t>(sizeof(float)));
  float* sums = reinterpret_cast<float*>(block.get());
  for_rows(exec, chunks, kSumRows * D, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      std::memset(sums + c * size, 0, static_cast<size_t>(size) * sizeof(float));
      fn(c * kSumRows, std::min((c + 1) * kSumRows, num_rows), sums + c * size);
    }
  });
  for (int64_t c = 1; c < chunks; ++c)
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[c * size + i];
  done(static_cast<const float*>(sums));
}

// out (+)= sums; nothing when out is null.
inline void put_sums(const float* sums, const View& out, bool add) {
  if (!out) return;
  float* y = out.as<float>();
  for (int64_t i = 0; i < out.numel(); ++i) y[i] = add ? y[i] + sums[i] : sums[i];
}

}  // namespace fathom::simd
