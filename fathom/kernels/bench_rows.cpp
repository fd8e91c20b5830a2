#include "fathom/kernels/bench_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/bench_job.h"
#include "fathom/kernels/cpu/simd/peak.h"

namespace fathom {
namespace {

std::vector<RowSpec> all_specs() {
  std::vector<RowSpec> all;
  for (const auto& part : {row_wise_specs(), expert_specs(), attention_specs()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

void poison(const View& v) {
  const auto n = static_cast<size_t>(v.numel());
  switch (v.dtype) {
    case DType::kF32:
      return static_cast<void>(std::fill_n(v.as<float>(), n, NAN));
    case DType::kF64:
      return static_cast<void>(std::fill_n(v.as<double>(), n, static_cast<double>(NAN)));
    case DType::kI32:
      return static_cast<void>(std::fill_n(v.as<int32_t>(), n, -7));
    default:
      std::memset(v.data, 0x7F, static_cast<size_t>(v.size_bytes()));  // NaN of e4m3
  }
}

void prepare(const std::vector<RowMaker::Output>& outputs) {
  for (const RowMaker::Output& o : outputs) {
    if (o.start) {
      copy(o.start, o.tensor);
    } else {
      poison(o.tensor);
    }
  }
}

bool is_real(const View& v) { return v.dtype == DType::kF32 || v.dtype == DType::kF64; }

// Relative to the largest wanted element; infinite where a NaN or a wrong integer stands.
double worst_error(const Tensor& got, const Tensor& want) {
  if (!is_real(want)) {
    const auto bytes = static_cast<size_t>(want.view.size_bytes());
    return std::memcmp(got.view.data, want.view.data, bytes) == 0 ? 0 : HUGE_VAL;
  }
  double top = 0, worst = 0;
  for (int64_t i = 0; i < want.view.numel(); ++i) {
    const double w = get_element(want, i), e = std::abs(get_element(got, i) - w);
    if (!std::isfinite(e)) return HUGE_VAL;
    top = std::max(top, std::abs(w));
    worst = std::max(worst, e);
  }
  return top > 0 ? worst / top : worst;
}

double check(const RowJob& job, const RowMaker& m) {
  prepare(m.outputs);
  job.call(m.kernels, m.exec);
  std::vector<Tensor> got;
  for (const RowMaker::Output& o : m.outputs) {
    got.push_back(empty(*m.exec.arena, o.tensor.view.dtype, {o.tensor.view.numel()}));
    std::memcpy(got.back().view.data, o.tensor.view.data,
                static_cast<size_t>(o.tensor.view.size_bytes()));
  }
  prepare(m.outputs);
  job.call(cpu_ref(), m.exec);
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, worst_error(got[i], m.outputs[i].tensor));
  return worst;
}

}  // namespace

Tensor RowMaker::input(std::initializer_list<int64_t> dims, double scale, bool coarse) {
  Tensor t = empty(*exec.arena, DType::kF32, dims);
  Rng rng(19, "bench rows", stream_++);
  for (int64_t i = 0; i < t.view.numel(); ++i) {
    const double x = 2 * rng.uniform() - 1;
    t.as<float>()[i] = static_cast<float>(scale * (coarse ? std::floor(16 * x) / 16 : x));
  }
  bytes += static_cast<double>(t.view.size_bytes());
  return t;
}

Tensor RowMaker::positive(std::initializer_list<int64_t> dims) {
  Tensor t = input(dims, 0.4);
  for (int64_t i = 0; i < t.view.numel(); ++i) t.as<float>()[i] += 0.5f;
  return t;
}

Tensor RowMaker::output(std::initializer_list<int64_t> dims, DType dtype) {
  outputs.push_back({empty(*exec.arena, dtype, dims), {}});
  poison(outputs.back().tensor);
  bytes += static_cast<double>(outputs.back().tensor.view.size_bytes());
  return outputs.back().tensor;
}

Tensor RowMaker::in_out(std::initializer_list<int64_t> dims, double scale) {
  const Tensor start = input(dims, scale), t = empty(*exec.arena, DType::kF32, dims);
  copy(start, t);
  bytes += static_cast<double>(t.view.size_bytes());
  outputs.push_back({t, start});
  return t;
}

std::vector<int32_t> RowMaker::indices(int64_t n, int64_t limit, int64_t distinct) {
  Rng rng(19, "bench indices", stream_++);
  std::vector<int32_t> out;
  while (static_cast<int64_t>(out.size()) < n) {
    const auto begin = out.end() - static_cast<int64_t>(out.size()) % distinct;
    const auto x = static_cast<int32_t>(rng.below(static_cast<uint64_t>(limit)));
    if (std::find(begin, out.end(), x) == out.end()) out.push_back(x);
  }
  bytes += 4 * static_cast<double>(n);
  return out;
}

struct RowBench::Data {
  const Kernels& kernels;
  RowBenchSizes sizes;
  Arena arena;
  HugeBuffer stream;
};

RowBench::RowBench(const Kernels& kernels, const RowBenchSizes& sizes)
    : d_(new Data{.kernels = kernels,
                  .sizes = sizes,
                  .arena = {},
                  .stream = HugeBuffer(static_cast<size_t>(sizes.stream_bytes))}) {
  // Pages that were never written are all one page of zeros, which the cache would deliver.
  std::memset(d_->stream.as<char>(), 1, d_->stream.size_bytes());
}

RowBench::~RowBench() = default;

std::vector<RowBenchCase> row_bench_cases(const RowBenchSizes& sizes) {
  std::vector<RowBenchCase> out;
  for (const RowSpec& spec : all_specs())
    out.push_back({spec.name, spec.shape(sizes), spec.memory_bound, spec.tolerance});
  return out;
}

RowBenchResult RowBench::run(const std::string& name, ThreadPool& pool, double seconds) {
  const std::vector<RowSpec> all = all_specs();
  const auto spec = std::ranges::find(all, name, &RowSpec::name);
  if (spec == all.end()) {
    throw Error(Code::kNotFound, fmt::format("no kernel row is called \"{}\"", name),
                "row_bench_cases() lists them");
  }
  const Exec exec{&pool, &d_->arena};
  RowMaker maker(d_->sizes, d_->kernels, exec);
  const RowJob job = spec->make(maker);
  RowBenchResult r;
  r.error = check(job, maker);
  r.checked = r.error <= spec->tolerance;
  const auto peak = [&] {
    return spec->memory_bound
               ? measure_read_bandwidth(pool, d_->stream.as<char>(), d_->stream.size_bytes())
               : measure_fma_peak(pool, kBenchBurst_s);
  };
  prepare(maker.outputs);
  r.time = measure_against_peak([&] { job.call(d_->kernels, exec); }, peak,
                                spec->memory_bound ? maker.bytes : job.flop, seconds);
  r.time.threads = pool.size();
  return r;
}

}  // namespace fathom
