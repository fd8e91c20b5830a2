// One kernel call with its operands, for bench_rows.cpp: how a row of the bench is described.
// Internal to the bench.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/kernels/bench_rows.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

class RowJob {
 public:
  // f(kernels, exec) makes the call and keeps the operands; `work` counts the flop of a
  // compute-bound row.
  template <class F>
  RowJob(F f, double work = 0)  // NOLINT: a row returns its lambda
      : flop(work), operands_(std::make_shared<F>(std::move(f))), call_(run<F>) {}
  void call(const Kernels& k, const Exec& e) const { call_(operands_.get(), k, e); }

  double flop = 0;

 private:
  template <class F>
  static void run(const void* f, const Kernels& k, const Exec& e) {
    (*static_cast<const F*>(f))(k, e);
  }
  std::shared_ptr<const void> operands_;
  void (*call_)(const void*, const Kernels&, const Exec&);
};

// Allocates operands, counts the bytes that move, and remembers what the call writes.
class RowMaker {
 public:
  RowMaker(const RowBenchSizes& sizes, const Kernels& table, const Exec& where)
      : s(sizes), kernels(table), exec(where) {}

  const RowBenchSizes& s;
  const Kernels& kernels;
  const Exec& exec;

  // Even numbers in scale * [-1, 1), multiples of scale / 16 when `coarse`: then sums of products
  // are exact, and selections do not depend on rounding.
  Tensor input(std::initializer_list<int64_t> dims, double scale = 1, bool coarse = false);
  // Numbers in (0.1, 0.9): scores, variances.
  Tensor positive(std::initializer_list<int64_t> dims);
  // Written with `=`; filled with NaN or -7 before the checked call.
  Tensor output(std::initializer_list<int64_t> dims, DType dtype = DType::kF32);
  // Read and written; set back before the checked call.
  Tensor in_out(std::initializer_list<int64_t> dims, double scale = 1);
  // n numbers below `limit`, different within each group of `distinct`.
  std::vector<int32_t> indices(int64_t n, int64_t limit, int64_t distinct = 1);

  double bytes = 0;  // read + written
  struct Output {
    Tensor tensor, start;
  };
  std::vector<Output> outputs;

 private:
  uint64_t stream_ = 0;
};

struct RowSpec {
  const char* name;
  bool memory_bound;
  double tolerance;
  std::string (*shape)(const RowBenchSizes&);
  RowJob (*make)(RowMaker&);
};

std::span<const RowSpec> row_wise_specs();   // bench_rows_basic.cpp
std::span<const RowSpec> expert_specs();     // bench_rows_experts.cpp
std::span<const RowSpec> attention_specs();  // bench_rows_attention.cpp

}  // namespace fathom
