#include "fathom/kernels/bench_exactness.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/bench_loop.h"
#include "fathom/kernels/bench_loose.h"
#include "fathom/kernels/bench_packed.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

constexpr int64_t kMaxDotRows = 4;

std::vector<float> numbers(int64_t n, uint64_t stream) {
  Rng rng(23, "bench exactness", stream);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = static_cast<float>(static_cast<int32_t>(rng.next() >> 32)) * 0x1p-31F;
  return out;
}

// The operands of a case, and one list of outputs for each way of computing them.
class Job {
 public:
  // kMixed: each product and the attention in the way that is the fastest for it alone.
  enum Way : uint8_t { kExact, kSplit, kDots, kMixed, kNumWays };

  Job(const Kernels& kernels, const Exec& exec, const ExactnessCase& c)
      : kernels_(kernels), exec_(exec), c_(c), loose_attention_(kernels, *exec.pool) {
    int64_t widest = 0;
    for (const ProductShape& p : c.products) {
      widest = std::max(widest, p.k);
      for (int64_t i = 0; i < p.count; ++i) add_product(p);
    }
    rows_ = numbers(c.m * widest, 1);
    if (c.keys > 0) add_attention();
    if (offers(kMixed)) choose_ways();
  }

  bool offers(Way way) const {
    const bool several = c_.products.size() + (c_.keys > 0) > 1;
    const bool split = exec_.pool->size() > 1;
    const bool dots = c_.type == PackedType::kF32 && c_.m <= kMaxDotRows && !c_.products.empty();
    switch (way) {
      case kSplit:
        return split;
      case kDots:
        return dots;
      case kMixed:
        return several && (split || dots);
      default:
        return true;
    }
  }

  void call(Way way) {
    for (size_t i = 0; i < exact_.size(); ++i)
      multiply(way == kMixed ? product_way_[i] : way, i, outputs_[way].data() + first_[i]);
    if (c_.keys > 0)
      attend(way == kMixed ? attention_way_ : way, outputs_[way].data() + first_[exact_.size()]);
  }

  // Of the last calls.
  double error(Way way) const {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < outputs_[way].size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(outputs_[kExact][i])));
      const double d = static_cast<double>(outputs_[way][i]) - outputs_[kExact][i];
      worst = std::isfinite(d) ? std::max(worst, std::fabs(d)) : HUGE_VAL;
    }
    return worst / largest;
  }
  bool same_bits(Way way) const {
    return !std::memcmp(outputs_[way].data(), outputs_[kExact].data(),
                        outputs_[way].size() * sizeof(float));
  }

 private:
  void add_product(const ProductShape& p) {
    const std::vector<float> w = numbers(p.n * p.k, 2 + exact_.size());
    ThreadPool& pool = *exec_.pool;
    exact_.emplace_back(c_.type, w.data(), p.k, p.n, p.k, pool);
    if (offers(kSplit)) split_.emplace_back(c_.type, false, w.data(), p.n, p.k, pool);
    if (offers(kDots)) dots_.emplace_back(c_.type, true, w.data(), p.n, p.k, pool);
    first_.push_back(first_.back() + static_cast<size_t>(c_.m * p.n));
    for (std::vector<float>& out : outputs_) out.resize(first_.back(), NAN);
  }

  void multiply(Way way, size_t i, float* to) {
    const PackedB& b = exact_[i].packed();
    if (way == kExact)
      gemm({.a = rows_.data(), .lda = b.k, .b = b, .c = to, .ldc = b.n, .m = c_.m}, *exec_.pool);
    else
      (way == kSplit ? split_ : dots_)[i].run(rows_.data(), c_.m, to);
  }

  // In all layers.
  void attend(Way way, float* to) {
    for (int64_t l = 0; l < c_.attention.layers; ++l) {
      const Attention a = attention(l, to);
      if (way == kSplit)
        loose_attention_.run(a);
      else
        kernels_.attention(exec_, a);
      to += a.z.numel();
    }
  }

  // The way in which run(way) takes the least time.
  template <class F>
  Way fastest_way(const F& run) const {
    constexpr int kTries = 15;
    double best_s[kMixed];
    std::fill_n(best_s, static_cast<int>(kMixed), HUGE_VAL);
    for (int i = 0; i < kTries; ++i)
      for (const Way way : {kExact, kSplit, kDots}) {
        if (!offers(way)) continue;
        const double start = bench_now_s();
        run(way);
        best_s[way] = std::min(best_s[way], bench_now_s() - start);
      }
    return static_cast<Way>(std::min_element(best_s, best_s + kMixed) - best_s);
  }

  void choose_ways() {
    float* out = outputs_[kMixed].data();
    size_t first = 0;
    for (const ProductShape& p : c_.products) {
      const size_t end = first + static_cast<size_t>(p.count);
      product_way_.resize(end, fastest_way([&](Way way) {
                            for (size_t i = first; i < end; ++i) multiply(way, i, out + first_[i]);
                          }));
      first = end;
    }
    if (c_.keys > 0)
      attention_way_ = fastest_way([&](Way way) { attend(way, out + first_[first]); });
  }

  void add_attention() {
    FM_CHECK(c_.m == 1, "attention of {} tokens", c_.m);
    const AttentionShape& s = c_.attention;
    const int64_t width = s.latent + s.rope;
    queries_ = numbers(s.heads * width, 900);
    for (int64_t l = 0; l < s.layers; ++l) {
      latents_.push_back(numbers((c_.keys + kPageTokens) * width, 1000 + static_cast<uint64_t>(l)));
      pages_.emplace_back();
      for (int64_t p = 0; p < c_.keys; p += kPageTokens)
        pages_.back().push_back(latents_.back().data() + p * width);
    }
    last_ = static_cast<int32_t>(c_.keys - 1);
    for (std::vector<float>& out : outputs_)
      out.resize(out.size() + static_cast<size_t>(s.layers * s.heads * s.latent), NAN);
  }

  Attention attention(int64_t layer, float* z) {
    const AttentionShape& s = c_.attention;
    return {
        .q_lat = make_view(queries_.data(), DType::kF32, {1, s.heads, s.latent}),
        .q_pe = make_view(queries_.data() + s.heads * s.latent, DType::kF32, {1, s.heads, s.rope}),
        .rows = {.num_seq = 1, .first_row = first_row_, .first_pos = &last_},
        .keys = {pages_[static_cast<size_t>(layer)].data(), &first_page_, s.latent + s.rope,
                 DType::kF32},
        .scale = 1 / std::sqrt(static_cast<double>(s.latent + s.rope)),
        .z = make_view(z, DType::kF32, {1, s.heads, s.latent})};
  }

  const Kernels& kernels_;
  const Exec& exec_;
  ExactnessCase c_;
  std::vector<PackedWeights> exact_;
  std::vector<LooseProduct> split_, dots_;
  LooseAttention loose_attention_;
  std::vector<float> rows_, queries_;
  std::vector<std::vector<float>> latents_;
  std::vector<std::vector<const void*>> pages_;
  int32_t first_row_[2] = {0, 1}, first_page_ = 0, last_ = 0;
  std::vector<float> outputs_[kNumWays];
  std::vector<size_t> first_ = {0};  // of each product's outputs, then of the attention's
  std::vector<Way> product_way_;
  Way attention_way_ = kExact;
};

// Seconds of a call, over a burst of them.
double burst_s(Job& job, Job::Way way, int calls) {
  const double start = bench_now_s();
  for (int i = 0; i < calls; ++i) job.call(way);
  return (bench_now_s() - start) / calls;
}

}  // namespace

const LooseResult& ExactnessResult::fastest() const {
  FM_CHECK(!loose.empty(), "no variant");
  return *std::ranges::max_element(loose, {}, &LooseResult::cost);
}

ExactnessResult measure_exactness(const Kernels& kernels, const Exec& exec, const ExactnessCase& c,
                                  double seconds) {
  constexpr const char* kNames[] = {"exact", "sums cut over threads", "dots of rows",
                                    "each the fastest"};
  Job job(kernels, exec, c);
  std::vector<Job::Way> ways;
  for (const Job::Way way : {Job::kExact, Job::kSplit, Job::kDots, Job::kMixed})
    if (job.offers(way)) ways.push_back(way);
  for (const Job::Way way : ways) job.call(way);
  const int calls =
      std::max(1, static_cast<int>(kBenchBurst_s / std::max(1e-7, burst_s(job, Job::kExact, 1))));
  std::vector<double> times[Job::kNumWays];
  // In turn, there and back: each follows at times itself, with its weights still in the caches.
  for (const double end = bench_now_s() + seconds;
       times[Job::kExact].size() < 9 || bench_now_s() < end;) {
    for (const Job::Way way : ways) times[way].push_back(burst_s(job, way, calls));
    std::ranges::reverse(ways);
  }
  const auto best = [&](Job::Way way) { return std::ranges::min(times[way]); };
  const std::vector<double>& exact = times[Job::kExact];
  ExactnessResult r{.best_s = best(Job::kExact),
                    .spread = (bench_quantile(exact, 0.9) - bench_quantile(exact, 0.1)) /
                              bench_quantile(exact, 0.5)};
  for (const Job::Way way : {Job::kSplit, Job::kDots, Job::kMixed})
    if (job.offers(way))
      r.loose.push_back({.name = kNames[way],
                         .best_s = best(way),
                         .cost = r.best_s / best(way) - 1,
                         .error = job.error(way),
                         .same_bits = job.same_bits(way)});
  return r;
}

}  // namespace fathom
