// Measured FMA peak and streaming read bandwidth (see peak.h).
#include "fathom/kernels/cpu/simd/peak.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/peak.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
constexpr int kChains = HWY_LANES(float) >= 16 ? 24 : 12;  // latency x ports, within the registers

// Returns the flops done; `sink` keeps the arithmetic alive.
double fma_burst(int64_t steps, float* sink) {
  const D d;
  hn::Vec<D> acc[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) acc[i] = hn::Set(d, static_cast<float>(i));
  const auto x = hn::Set(d, 0.999f), y = hn::Set(d, 0.001f);
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = hn::MulAdd(acc[i], x, y);
  }
  auto sum = hn::Zero(d);
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum = hn::Add(sum, acc[i]);
  *sink += hn::GetLane(sum);
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(steps);
}

// Sums `count` floats, a multiple of 16, in ascending order: one stream, asked for a little early,
// is the quickest way to read memory.
float read_pass(const float* p, size_t count) {
  constexpr size_t kLine = 16, kAhead = 256;
  const D d;
  const size_t lanes = hn::Lanes(d);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * kLine <= count; i += 4 * kLine) {
#pragma GCC unroll 4
    for (size_t line = 0; line < 4; ++line) hwy::Prefetch(p + i + line * kLine + kAhead);
#pragma GCC unroll 16
    for (size_t at = 0; at < kLine; at += lanes) {
      s0 = hn::Add(s0, hn::Load(d, p + i + at));
      s1 = hn::Add(s1, hn::Load(d, p + i + kLine + at));
      s2 = hn::Add(s2, hn::Load(d, p + i + 2 * kLine + at));
      s3 = hn::Add(s3, hn::Load(d, p + i + 3 * kLine + at));
    }
  }
  for (; i < count; i += lanes) s0 = hn::Add(s0, hn::Load(d, p + i));
  return hn::GetLane(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom {

HWY_EXPORT(fma_burst);
HWY_EXPORT(read_pass);

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Passes `value` to the optimiser's blind side.
void keep(float value) { asm volatile("" : : "m"(value)); }

}  // namespace

double measure_fma_peak(ThreadPool& pool, double seconds) {
  constexpr int64_t kSteps = 20'000;
  std::atomic<double> flops{0};
  std::atomic<bool> stop{false};
  const auto start = Clock::now();
  pool.parallel_for(pool.size(), 1, [&](int64_t, int64_t, int) {
    double mine = 0;
    float sink = 0;
    while (!stop.load(std::memory_order_relaxed)) {
      mine += HWY_DYNAMIC_DISPATCH(fma_burst)(kSteps, &sink);
      if (seconds_since(start) >= seconds) stop = true;
    }
    keep(sink);
    flops.fetch_add(mine);
  });
  return flops / seconds_since(start);
}

double measure_read_bandwidth(ThreadPool& pool, const void* data, size_t bytes) {
  FM_CHECK(bytes % 64 == 0 && reinterpret_cast<uintptr_t>(data) % 64 == 0,
           "read bandwidth wants 64-byte granules, got {} bytes at {}", bytes, data);
  constexpr size_t kPiece = size_t{1} << 22;  // floats; 16 MB
  const auto* p = static_cast<const float*>(data);
  const size_t count = bytes / sizeof(float);
  const auto pieces = static_cast<int64_t>((count + kPiece - 1) / kPiece);
  const auto start = Clock::now();
  pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t, int) {
    const size_t at = static_cast<size_t>(begin) * kPiece;
    keep(HWY_DYNAMIC_DISPATCH(read_pass)(p + at, std::min(kPiece, count - at)));
  });
  return static_cast<double>(bytes) / seconds_since(start);
}

HugeBuffer::HugeBuffer(size_t bytes) : bytes_(bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    throw Error(Code::kExhausted, fmt::format("could not map {} bytes for a measurement", bytes),
                "free memory or use smaller shapes");
  }
  madvise(p, bytes, MADV_HUGEPAGE);
  std::memset(p, 0, bytes);  // pages of its own: unwritten ones share one page of zeros, in caches
  data_ = p;
}

HugeBuffer::~HugeBuffer() { munmap(data_, bytes_); }

}  // namespace fathom
#endif  // HWY_ONCE
