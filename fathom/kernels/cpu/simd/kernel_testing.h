// Checks of a vector kernel: against the reference, on odd sizes, misaligned and strided, inside
// sentinels, with the same bits on every instruction set, for one and two threads, and for a row
// alone.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_testing.h"
#include "fathom/kernels/kernels.h"
#include "fathom/tensor/arena.h"

namespace fathom::testing {

// A [T,D] f32 tensor inside a larger buffer: rows are D + 3 apart, the first starts 4 bytes after
// an aligned address, everything around the elements is a sentinel.
class Field {
 public:
  static constexpr float kSentinel = -12345.5f;
  // Random values in [-scale, scale); seed 0 leaves the sentinel.
  Field(int64_t T, int64_t D, uint64_t seed, float scale = 1) : T_(T), D_(D) {
    buffer_.assign(static_cast<size_t>(kFront + T * (D + kGap)) + 32, kSentinel);
    if (seed == 0) return;
    const std::vector<float> values = random_floats(T * D, seed);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t i = 0; i < D; ++i) at(t, i) = scale * values[static_cast<size_t>(t * D + i)];
  }
  float& at(int64_t t, int64_t i) {
    return buffer_[static_cast<size_t>(kFront + t * (D_ + kGap) + i)];
  }
  float at(int64_t t, int64_t i) const {
    return buffer_[static_cast<size_t>(kFront + t * (D_ + kGap) + i)];
  }
  int64_t rows() const { return T_; }
  int64_t columns() const { return D_; }
  // Rows first .. first + count - 1
  View view(int64_t first, int64_t count) {
    View v = make_view(&at(first, 0), DType::kF32, {count, D_});
    v.stride[0] = D_ + kGap;
    return v;
  }
  View view() { return view(0, T_); }
  View vector() { return make_view(&at(0, 0), DType::kF32, {D_}); }  // of row 0
  bool row_is(int64_t t, const Field& other) const {
    return D_ == 0 || std::memcmp(&buffer_[index(t)], &other.buffer_[index(t)],
                                  static_cast<size_t>(D_) * 4) == 0;
  }
  bool same_bits(const Field& other) const {
    return fathom::testing::same_bits(buffer_, other.buffer_);
  }
  bool guards_intact() const {
    for (size_t i = 0; i < buffer_.size(); ++i) {
      const int64_t k = static_cast<int64_t>(i) - kFront;
      const bool inside = k >= 0 && k < T_ * (D_ + kGap) && k % (D_ + kGap) < D_;
      if (!inside && buffer_[i] != kSentinel) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kFront = 17, kGap = 3;
  size_t index(int64_t t) const { return static_cast<size_t>(kFront + t * (D_ + kGap)); }
  int64_t T_, D_;
  std::vector<float> buffer_;
};

// One call of a kernel: rows begin .. begin + rows - 1 of tensors with T rows.
struct Call {
  const Kernels& k;
  Exec exec;
  int64_t T, D;
  int64_t begin, rows;
  bool add;
};

inline double worst_error(const Field& got, const Field& want) {
  double largest = 1, worst = 0;
  for (int64_t t = 0; t < want.rows(); ++t)
    for (int64_t i = 0; i < want.columns(); ++i) {
      const double w = static_cast<double>(want.at(t, i)),
                   error = std::abs(static_cast<double>(got.at(t, i)) - w);
      largest = std::max(largest, std::abs(w));
      worst = error <= worst ? worst : error;  // NaN stays
    }
  return worst / largest;
}

struct KernelCheck {
  double tolerance = 1e-6;  // of the largest element, at least 1
  bool row_exact = true;    // rows of all outputs depend on the same row of the inputs only
  std::vector<int64_t> widths = {1, 15, 16, 17, 33, 100, 256};
  std::vector<int64_t> heights = {0, 1, 2, 150};
};

// run(Call) -> std::vector<Field>: the outputs, always with T rows (or one row for sums over rows).
template <class Run>
void check_kernel(const Run& run, const KernelCheck& check = {}) {
  ThreadPool one(1), two(2);
  Arena arena;
  for (const int64_t D : check.widths)
    for (const int64_t T : check.heights)
      for (const bool add : {false, true}) {
        CAPTURE(D);
        CAPTURE(T);
        CAPTURE(add);
        const auto call = [&](const Kernels& k, ThreadPool& pool, int64_t begin, int64_t rows) {
          return run(Call{k, {&pool, &arena}, T, D, begin, rows, add});
        };
        const std::vector<Field> want = call(cpu_ref(), one, 0, T),
                                 got = call(cpu_simd(), one, 0, T);
        const std::vector<Field> threads = call(cpu_simd(), two, 0, T);
        for (size_t i = 0; i < got.size(); ++i) {
          CAPTURE(i);
          CHECK(worst_error(got[i], want[i]) <= check.tolerance);
          CHECK(got[i].guards_intact());
          CHECK(threads[i].same_bits(got[i]));
        }
        for_each_target([&] {
          const std::vector<Field> other = call(cpu_simd(), one, 0, T);
          for (size_t i = 0; i < got.size(); ++i) CHECK(other[i].same_bits(got[i]));
        });
        for (int64_t t = 0; check.row_exact && t < std::min<int64_t>(T, 3); ++t) {
          const std::vector<Field> alone = call(cpu_simd(), one, t, 1);
          for (size_t i = 0; i < got.size(); ++i) CHECK(alone[i].row_is(t, got[i]));
        }
      }
}

}  // namespace fathom::testing
