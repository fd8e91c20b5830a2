// Measurements of every kernel of the table that is not a matrix product (those: bench_gemm.h) at
// training shapes, each checked against the reference backend. Prints nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/kernels/bench_loop.h"
#include "fathom/kernels/kernels.h"

namespace fathom {

// The letters of docs/symbols.md; the defaults are a training step of a small model.
struct RowBenchSizes {
  int64_t T = 4096, D = 256, F = 512, E = 16, A = 4;
  int64_t W = 4096, loss_rows = 256;              // vocabulary; rows of a loss chunk
  int64_t num_seq = 4, L = 256;                   // attention: sequences of L tokens
  int64_t H = 4, C = 64, R = 16, N = 48, V = 48;  // attention
  int64_t J = 4, I = 32, K = 64;                  // indexer
  int64_t params = int64_t{1} << 20;              // of one optimiser step
  int64_t stream_bytes = int64_t{1} << 30;  // read to measure the bandwidth: larger than caches
};

struct RowBenchCase {
  std::string name;  // slot of the kernel table, with "_sel" for a sparse selection
  std::string shape;
  bool memory_bound = true;  // judged by the read bandwidth instead of the FMA peak
  double tolerance = 0;      // of the largest element of each output, as in the kernel tests
};

std::vector<RowBenchCase> row_bench_cases(const RowBenchSizes& sizes);

struct RowBenchResult {
  // The rate counts the bytes that the call must read and write once, or useful flop: causal or
  // selected pairs only; an adjoint of attention counts the five products it needs without stored
  // scores.
  BenchResult time;
  double error = 0;      // worst output element, relative to the largest of that output
  bool checked = false;  // every output is within the tolerance; integers and codes are equal
};

// Owns the memory that the bandwidth is measured on. Not thread-safe.
class RowBench {
 public:
  RowBench(const Kernels& kernels, const RowBenchSizes& sizes);  // kernels must outlive it
  ~RowBench();
  RowBench(const RowBench&) = delete;
  RowBench& operator=(const RowBench&) = delete;

  // `name` is one of row_bench_cases(); else Error kNotFound.
  RowBenchResult run(const std::string& name, ThreadPool& pool, double seconds);

 private:
  struct Data;
  std::unique_ptr<Data> d_;
};

}  // namespace fathom
