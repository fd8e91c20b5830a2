#include "fathom/kernels/bench_loose.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/bench_loose_dots.h"
#include "fathom/kernels/bench_packed.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

// As in gemm.cpp: less is not worth a fork-join.
constexpr int64_t kSerialWork = 64 * 1024;

}  // namespace

struct LooseProduct::Data {
  ThreadPool& pool;
  int64_t n, k;
  std::unique_ptr<HugeBuffer> rows = nullptr;  // dots
  struct Slice {
    int64_t first;  // k
    PackedWeights weights;
    std::unique_ptr<ThreadPool> solo;
  };
  std::vector<Slice> slices = {};
};

LooseProduct::LooseProduct(PackedType type, bool dots, const float* w, int64_t n, int64_t k,
                           ThreadPool& pool)
    : d_(new Data{.pool = pool, .n = n, .k = k}) {
  if (dots) {
    FM_CHECK(type == PackedType::kF32 && n >= 4 && k >= 1, "n={} k={}", n, k);
    d_->rows = std::make_unique<HugeBuffer>(static_cast<size_t>(n * k) * sizeof(float));
    std::copy_n(w, n * k, d_->rows->as<float>());
    return;
  }
  const bool cut = pool.size() > 1 && n * k > kSerialWork;
  const int64_t groups = (k + kQuantGroup - 1) / kQuantGroup;
  const int64_t num = cut ? std::min<int64_t>(pool.size(), groups) : 1;
  for (int64_t s = 0; s < num; ++s) {
    const int64_t first = groups * s / num * kQuantGroup;
    const int64_t end = std::min(k, groups * (s + 1) / num * kQuantGroup);
    d_->slices.push_back({first, PackedWeights(type, w + first, k, n, end - first, pool),
                          std::make_unique<ThreadPool>(1)});
  }
}

LooseProduct::~LooseProduct() = default;
LooseProduct::LooseProduct(LooseProduct&&) noexcept = default;

void LooseProduct::run(const float* a, int64_t m, float* c) const {
  const int64_t n = d_->n, k = d_->k;
  if (d_->rows) {
    const DotArgs dots{.a = a, .m = m, .k = k, .w = d_->rows->as<float>(), .c = c, .ldc = n};
    if (n * k <= kSerialWork || n < 4 * d_->pool.size()) return loose_dots(dots, 0, n);
    const int64_t grain = std::max<int64_t>(4, n / (4 * d_->pool.size()) / 4 * 4);
    d_->pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int) {
      loose_dots(dots, std::min(begin, n - 4), end);
    });
    return;
  }
  const auto slice = [&](const Data::Slice& s, float* to) {
    gemm({.a = a + s.first, .lda = k, .b = s.weights.packed(), .c = to, .ldc = n, .m = m}, *s.solo);
  };
  if (d_->slices.size() == 1) return slice(d_->slices[0], c);
  std::mutex mutex;
  bool first = true;
  d_->pool.parallel_for(std::ssize(d_->slices), 1, [&](int64_t begin, int64_t end, int) {
    thread_local std::vector<float> part;
    part.resize(static_cast<size_t>(m * n));
    for (int64_t s = begin; s < end; ++s) {
      slice(d_->slices[static_cast<size_t>(s)], part.data());
      const std::lock_guard lock(mutex);  // whoever comes first is first in the sum
      if (std::exchange(first, false))
        std::copy(part.begin(), part.end(), c);
      else
        for (size_t i = 0; i < part.size(); ++i) c[i] += part[i];
    }
  });
}

struct LooseAttention::Data {
  const Kernels& kernels;
  ThreadPool& pool;
  struct Part {
    ThreadPool solo{1};
    Arena arena;
    std::vector<float> z, lse;
  };
  std::vector<std::unique_ptr<Part>> parts;  // one per thread
};

LooseAttention::LooseAttention(const Kernels& kernels, ThreadPool& pool)
    : d_(new Data{.kernels = kernels, .pool = pool, .parts = {}}) {
  for (int i = 0; i < pool.size(); ++i) d_->parts.push_back(std::make_unique<Data::Part>());
}

LooseAttention::~LooseAttention() = default;

void LooseAttention::run(const Attention& a) {
  const int64_t H = a.q_lat.dim[1], C = a.q_lat.dim[2], keys = a.rows.first_pos[0] + 1;
  const int64_t pages = (keys + kPageTokens - 1) / kPageTokens;
  const int64_t num = std::min<int64_t>(d_->pool.size(), pages);
  std::mutex mutex;
  Data::Part* total = nullptr;
  d_->pool.parallel_for(num, 1, [&](int64_t s, int64_t, int) {
    const int64_t p0 = pages * s / num, p1 = pages * (s + 1) / num;
    const int32_t first_row[2] = {0, 1};
    const auto first_page = static_cast<int32_t>(a.keys.first_page[0] + p0);
    const auto last = static_cast<int32_t>(std::min(keys, p1 * kPageTokens) - p0 * kPageTokens - 1);
    Data::Part& own = *d_->parts[static_cast<size_t>(s)];
    own.z.resize(static_cast<size_t>(H * C));
    own.lse.resize(static_cast<size_t>(H));
    Attention part = a;
    part.rows = {.num_seq = 1, .first_row = first_row, .first_pos = &last};
    part.keys.first_page = &first_page;
    part.z = make_view(own.z.data(), DType::kF32, {1, H, C});
    part.lse = make_view(own.lse.data(), DType::kF32, {1, H});
    d_->kernels.attention({&own.solo, &own.arena}, part);
    const std::lock_guard lock(mutex);
    if (!total) {
      total = &own;
      return;
    }
    for (int64_t h = 0; h < H; ++h) {  // the state that was there first stands on the left
      float &l = total->lse[static_cast<size_t>(h)], r = own.lse[static_cast<size_t>(h)];
      const float top = std::max(l, r), p = std::exp(l - top), q = std::exp(r - top);
      float* z = total->z.data() + h * C;
      const float* y = own.z.data() + h * C;
      for (int64_t i = 0; i < C; ++i) z[i] = (p * z[i] + q * y[i]) / (p + q);
      l = top + std::log(p + q);
    }
  });
  copy(make_view(total->z.data(), DType::kF32, {1, H, C}), a.z);
}

}  // namespace fathom
