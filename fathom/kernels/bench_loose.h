// Products and attention without the promise of gemm.h and Attention that bits depend on a row
// alone: sums are cut where threads are free and added in the order in which they arrive, and dots
// use several accumulators. Only to measure what the promise costs; nothing else calls them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fathom/kernels/gemm.h"
#include "fathom/kernels/kernels.h"

namespace fathom {

// c[m][n] = a w^T for one weight matrix.
class LooseProduct {
 public:
  // w: [n][k] f32, packed or coded as `type` says (not kE4M3). dots: the rows of w as they are
  // stored, each output a dot product with the accumulators of whole vectors (kF32, k >= 1, n >=
  // 4); else k in one slice for each thread, by the panel tiles.
  LooseProduct(PackedType type, bool dots, const float* w, int64_t n, int64_t k, ThreadPool& pool);
  ~LooseProduct();
  LooseProduct(LooseProduct&&) noexcept;

  // a: [m][k], c: [m][n]. With the pool of the constructor.
  void run(const float* a, int64_t m, float* c) const;

 private:
  struct Data;
  std::unique_ptr<Data> d_;
};

// Attention of one token at the last position, dense over the keys: every thread takes a range of
// pages with a softmax state of its own.
class LooseAttention {
 public:
  LooseAttention(const Kernels& kernels, ThreadPool& pool);
  ~LooseAttention();

  // Like Kernels::attention with rows.num_seq == 1, f32.
  void run(const Attention& a);

 private:
  struct Data;
  std::unique_ptr<Data> d_;
};

}  // namespace fathom
