// Benchmark of the matrix products (see bench_gemm.h).
#include "fathom/kernels/bench_gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/quantized.h"
#include "fathom/kernels/cpu/ref/split_products.h"
#include "fathom/kernels/cpu/simd/peak.h"
#include "fathom/kernels/cpu/simd/split_products.h"

namespace fathom {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Fills with finite numbers of the type: a random block, copied over and over.
void fill(PackedType type, size_t bytes, char* dst, ThreadPool& pool) {
  constexpr size_t kBlock = size_t{1} << 20;
  std::vector<char> block(kBlock);
  uint64_t state = 7;
  for (size_t i = 0; i < kBlock; i += 4) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto bits = static_cast<uint32_t>(state >> 32);
    const float x = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f;
    uint32_t word = 0;
    std::memcpy(&word, &x, sizeof word);
    if (type == PackedType::kBF16) word = (word & 0xFFFF0000u) | 0x3F80u | (bits & 0x7Fu);
    if (type == PackedType::kE4M3) word = bits & 0xBFBFBFBFu;
    if (is_quantized(type)) word = bits;
    std::memcpy(&block[i], &word, sizeof word);
  }
  pool.parallel_for(static_cast<int64_t>((bytes + kBlock - 1) / kBlock), 1,
                    [&](int64_t b, int64_t, int) {
                      const size_t at = static_cast<size_t>(b) * kBlock;
                      std::memcpy(dst + at, block.data(), std::min(kBlock, bytes - at));
                    });
}

float decoded(const PackedB& b, int64_t i) {
  switch (b.type) {
    case PackedType::kF32:
      return static_cast<const float*>(b.data)[i];
    case PackedType::kBF16: {
      const uint32_t bits = uint32_t{static_cast<const uint16_t*>(b.data)[i]} << 16;
      float x = 0;
      std::memcpy(&x, &bits, sizeof x);
      return x;
    }
    case PackedType::kE4M3: {
      const int code = static_cast<const uint8_t*>(b.data)[i];
      const int exponent = code >> 3 & 15, mantissa = code & 7;
      const float x = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -17)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 18);
      return code & 128 ? -x : x;
    }
    case PackedType::kQ8:
    case PackedType::kQ4:
    case PackedType::kSplit:
      break;
  }
  return 0;
}

// One output of quantised weights: the row is taken out of its panel.
float coded_reference(const PackedB& b, const float* a, int64_t col) {
  const int64_t panel = col / kPanelCols, lane = col % kPanelCols;
  const int64_t groups = ceil_div(b.k, kQuantGroup);
  const bool q8 = b.type == PackedType::kQ8;
  const auto* data = static_cast<const uint8_t*>(b.data) + panel * groups * (q8 ? 1024 : 512);
  const auto* packed_scales = static_cast<const uint16_t*>(b.scales) + panel * groups * kPanelCols;
  std::vector<uint8_t> row(static_cast<size_t>(quant_row_bytes(b.type, b.k)));
  std::vector<uint16_t> scales;
  for (int64_t g = 0; g < groups; ++g) scales.push_back(packed_scales[g * kPanelCols + lane]);
  for (int64_t k = 0; k < b.k; ++k) {
    const auto at = [&](int64_t i) { return data[(i / 4 * kPanelCols + lane) * 4 + i % 4]; };
    if (q8) {
      row[static_cast<size_t>(k)] = static_cast<uint8_t>(at(k) ^ 128);
      continue;
    }
    const int64_t half = kQuantGroup / 2, in_group = k % kQuantGroup;
    const int code = at(k / kQuantGroup * half + in_group % half) >> (in_group < half ? 0 : 4) & 15;
    row[static_cast<size_t>(k / 2)] |= static_cast<uint8_t>(code << (k % 2 * 4));
  }
  return ref::coded_dot(ref::code_row(a, b.k), b.type, row.data(), scales.data());
}

// One output by the rule of gemm.h.
float reference(const PackedB& b, const float* a, int64_t col) {
  if (is_quantized(b.type)) return coded_reference(b, a, col);
  const int64_t panel = col / kPanelCols, lane = col % kPanelCols;
  const int64_t blocks = ceil_div(b.k, kScaleBlock);
  const auto* scales = static_cast<const float*>(b.scales);
  const int64_t step = b.scales != nullptr ? kScaleBlock : b.k;
  float acc = 0;
  for (int64_t k0 = 0; k0 < b.k; k0 += step) {
    float part = 0;
    for (int64_t k = k0; k < std::min(k0 + step, b.k); ++k) {
      part = std::fma(a[k], decoded(b, (panel * b.k + k) * kPanelCols + lane), part);
    }
    if (b.scales == nullptr) return part;
    acc = std::fma(part, scales[panel * blocks + k0 / kScaleBlock], acc);
  }
  return acc;
}

// The operands of a case and the call to be timed.
class Job {
 public:
  Job(const BenchCase& c, ThreadPool& pool);
  void call(ThreadPool& pool);
  bool exact() const;
  const HugeBuffer& weights() const { return *w_; }
  double work() const;  // flop, or bytes of weights

 private:
  BenchCase c_;
  std::unique_ptr<HugeBuffer> a_, w_, c_out_;
  std::vector<PackedB> b_;
  std::vector<int32_t> offsets_;
};

size_t at_least_a_page(double bytes) { return std::max<size_t>(4096, static_cast<size_t>(bytes)); }

Job::Job(const BenchCase& c, ThreadPool& pool) : c_(c) {
  const size_t floats = sizeof(float);
  const auto m = static_cast<size_t>(c.m), n = static_cast<size_t>(c.n),
             k = static_cast<size_t>(c.k);
  const bool grad = c.kernel == BenchKernel::kWeightGrad, pack = c.kernel == BenchKernel::kPack;
  const size_t each = packed_size_bytes(c.type, c.n, c.k);
  // weight gradient: a_ is x, w_ is dy, c_out_ is dW; packing: w_ to c_out_
  a_ = std::make_unique<HugeBuffer>(at_least_a_page(static_cast<double>(m * k * floats)));
  w_ = std::make_unique<HugeBuffer>(grad   ? m * n * floats
                                    : pack ? n * k * floats
                                           : each * static_cast<size_t>(c.groups));
  c_out_ = std::make_unique<HugeBuffer>((grad ? n * k : m * n) * floats + (pack ? each : 4096));
  fill(PackedType::kF32, a_->size_bytes(), a_->as<char>(), pool);
  fill(grad || pack ? PackedType::kF32 : c.type, w_->size_bytes(), w_->as<char>(), pool);
  if (grad || pack) return;
  for (int64_t e = 0; e < c.groups; ++e) {
    char* data = w_->as<char>() + static_cast<size_t>(e) * each;
    PackedB b{.type = c.type, .n = c.n, .k = c.k, .data = data};
    if (c.type == PackedType::kE4M3 || is_quantized(c.type)) {
      const int64_t padded = ceil_div(c.n, kPanelCols) * kPanelCols;
      const int64_t codes = c.type == PackedType::kE4M3
                                ? padded * c.k
                                : padded * quant_row_bytes(c.type, ceil_div(c.k, 64) * 64);
      const size_t used = (static_cast<size_t>(codes) + 63) / 64 * 64;
      fill(is_quantized(c.type) ? PackedType::kBF16 : PackedType::kF32, each - used, data + used,
           pool);
      b.scales = data + used;
    }
    b_.push_back(b);
    offsets_.push_back(static_cast<int32_t>(c.m * e / c.groups));
  }
  offsets_.push_back(static_cast<int32_t>(c.m));
}

void Job::call(ThreadPool& pool) {
  const auto* a = a_->as<const float>();
  auto* out = c_out_->as<float>();
  switch (c_.kernel) {
    case BenchKernel::kGemm:
      return gemm({.a = a, .lda = c_.k, .b = b_[0], .c = out, .ldc = c_.n, .m = c_.m}, pool);
    case BenchKernel::kGrouped:
      return gemm_grouped({.a = a,
                           .lda = c_.k,
                           .b = b_.data(),
                           .offsets = offsets_.data(),
                           .groups = c_.groups,
                           .c = out,
                           .ldc = c_.n},
                          pool);
    case BenchKernel::kWeightGrad:
      return gemm_weight_grad({.dy = w_->as<const float>(),
                               .ldy = c_.n,
                               .x = a,
                               .ldx = c_.k,
                               .dw = out,
                               .ldw = c_.k,
                               .m = c_.m,
                               .n = c_.n,
                               .k = c_.k,
                               .products = c_.products},
                              pool);
    case BenchKernel::kPack:
      pack_nt({.type = c_.type,
               .n = c_.n,
               .k = c_.k,
               .src = w_->as<const float>(),
               .ld = c_.k,
               .dst = out},
              pool);
  }
}

double Job::work() const {
  const auto n = static_cast<double>(c_.n), k = static_cast<double>(c_.k);
  if (c_.kernel == BenchKernel::kPack) return n * k * sizeof(float);
  if (!c_.memory_bound) return 2.0 * static_cast<double>(c_.m) * n * k;
  return static_cast<double>(packed_size_bytes(c_.type, c_.n, c_.k)) *
         static_cast<double>(c_.groups);
}

bool Job::exact() const {
  constexpr int64_t kSamples = 40;
  const auto* a = a_->as<const float>();
  const auto* w = w_->as<const float>();
  const auto* out = c_out_->as<const float>();
  for (int64_t s = 0; s < kSamples; ++s) {
    const int64_t i = s * 7919 % std::max<int64_t>(c_.m, 1), j = s * 104729 % c_.n;
    float want = 0, got = out[i * c_.n + j];
    if (c_.kernel == BenchKernel::kWeightGrad) {
      const int64_t q = s * 31 % c_.k;
      got = out[j * c_.k + q];
      for (int64_t i0 = 0; i0 < c_.m; i0 += kGradChunk) {
        float acc = 0;
        for (int64_t r = i0; r < std::min(i0 + kGradChunk, c_.m); ++r) {
          acc = std::fma(w[r * c_.n + j], a[r * c_.k + q], acc);
        }
        if (c_.products == GradProducts::kSplit) {
          acc = ref::split_dot(w + i0 * c_.n + j, c_.n, a + i0 * c_.k + q, c_.k,
                               std::min(kGradChunk, c_.m - i0));
        }
        want += acc;
      }
    } else if (c_.kernel == BenchKernel::kPack) {
      const int64_t q = s * 31 % c_.k;
      want = w[j * c_.k + q];
      got = out[(j / kPanelCols * c_.k + q) * kPanelCols + j % kPanelCols];
    } else {
      const auto e = std::upper_bound(offsets_.begin(), offsets_.end(), i) - offsets_.begin() - 1;
      want = reference(b_[static_cast<size_t>(e)], a + i * c_.k, j);
    }
    if (std::memcmp(&want, &got, sizeof want) != 0) return false;
  }
  return true;
}

const char* type_name(PackedType t) {
  return t == PackedType::kF32    ? "f32"
         : t == PackedType::kBF16 ? "bf16"
         : t == PackedType::kE4M3 ? "e4m3"
         : t == PackedType::kQ8   ? "q8"
                                  : "q4";
}

}  // namespace

std::string BenchCase::name() const {
  const char* kind = kernel == BenchKernel::kGemm         ? "gemm"
                     : kernel == BenchKernel::kGrouped    ? "gemm_grouped"
                     : kernel == BenchKernel::kWeightGrad ? "weight_grad"
                                                          : "pack";
  return fmt::format("{}_{}", kind, products == GradProducts::kSplit ? "split" : type_name(type));
}

std::string BenchCase::shape() const {
  return groups > 1 ? fmt::format("M={} N={} K={} E={}", m, n, k, groups)
                    : fmt::format("M={} N={} K={}", m, n, k);
}

std::vector<BenchCase> gemm_bench_cases() {
  using enum BenchKernel;
  std::vector<BenchCase> all;
  // Weights of about a gigabyte: only memory can deliver them.
  all.push_back({kGemm, PackedType::kF32, 1, 65536, 4096, 1, GradProducts::kF32, true});
  all.push_back({kGemm, PackedType::kBF16, 1, 131072, 4096, 1, GradProducts::kF32, true});
  all.push_back({kGemm, PackedType::kE4M3, 1, 262144, 4096, 1, GradProducts::kF32, true});
  all.push_back({kGemm, PackedType::kQ8, 1, 262144, 4096, 1, GradProducts::kF32, true});
  all.push_back({kGemm, PackedType::kQ4, 1, 262144, 4096, 1, GradProducts::kF32, true});
  all.push_back({kGemm, PackedType::kF32, 4, 65536, 4096, 1, GradProducts::kF32, true});
  for (const auto& [n, k] :
       {std::pair{256, 256}, {256, 1024}, {1024, 256}, {4096, 256}, {1024, 1024}, {4096, 4096}}) {
    for (const int64_t m : {64, 256, 4096}) all.push_back({kGemm, PackedType::kF32, m, n, k});
  }
  for (const auto& [n, k] : {std::pair{64, 64}, {256, 64}, {64, 256}, {768, 256}, {256, 768}}) {
    all.push_back({kGemm, PackedType::kF32, 4096, n, k});
  }
  for (const PackedType type :
       {PackedType::kBF16, PackedType::kE4M3, PackedType::kQ8, PackedType::kQ4}) {
    for (const int64_t m : {8, 64, 256}) all.push_back({kGemm, type, m, 4096, 1024});
  }
  all.push_back({kGrouped, PackedType::kF32, 16384, 512, 256, 16});
  all.push_back({kGrouped, PackedType::kF32, 16384, 256, 256, 16});
  all.push_back({kGrouped, PackedType::kQ8, 2048, 256, 512, 32});
  for (const auto& [n, k] :
       {std::pair{64, 256}, {256, 64}, {256, 256}, {256, 768}, {1024, 1024}, {4096, 256}}) {
    all.push_back({kWeightGrad, PackedType::kF32, 4096, n, k});
    if (simd::has_split_products())
      all.push_back({kWeightGrad, PackedType::kF32, 4096, n, k, 1, GradProducts::kSplit});
  }
  all.push_back({kPack, PackedType::kF32, 0, 4096, 4096, 1, GradProducts::kF32, true});
  return all;
}

GemmBenchResult run_gemm_bench(const BenchCase& c, ThreadPool& pool, double seconds) {
  Job job(c, pool);
  const auto peak = [&] {
    return c.memory_bound ? measure_read_bandwidth(pool, job.weights().as<char>(),
                                                   job.weights().size_bytes() / 64 * 64)
                          : measure_fma_peak(pool, kBenchBurst_s);
  };
  GemmBenchResult r;
  r.time = measure_against_peak([&] { job.call(pool); }, peak, job.work(), seconds);
  r.time.threads = pool.size();
  r.exact = job.exact();
  return r;
}

}  // namespace fathom
