// Splits the rows of a kernel over the pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/kernels.h"

namespace fathom::simd {

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

}  // namespace fathom::simd
