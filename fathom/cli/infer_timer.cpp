#include "fathom/cli/infer_timer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/ops/basic.h"

namespace fathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int64_t kVariety = 1024;  // tokens that passes begin with, in turn

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Uniform with variance 1, the size that normed latents and keys have.
void fill_random(float* x, int64_t n, uint64_t key, uint64_t begin) {
  constexpr float kWidth = 3.4641016f;  // of the interval: square root of 12
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t word = hash_mix(key, begin + static_cast<uint64_t>(i) / 2);
    const auto bits = static_cast<uint32_t>(i % 2 ? word >> 32 : word);
    x[i] = kWidth * (static_cast<float>(bits >> 8) * 0x1p-24f - 0.5f);
  }
}

// Passes, the first one not counted, until the time is over.
template <class F>
TimedPass time_passes(double seconds, const F& pass) {
  constexpr size_t kLeast = 3;
  pass();
  std::vector<double> times;
  for (double begin_s = now_s(); times.size() < kLeast || now_s() - begin_s < seconds;) {
    const double start_s = now_s();
    pass();
    times.push_back(now_s() - start_s);
  }
  TimedPass out;
  out.add(times);
  return out;
}

}  // namespace

void TimedPass::add(const std::vector<double>& more_s) {
  pass_s.insert(pass_s.end(), more_s.begin(), more_s.end());
  std::sort(pass_s.begin(), pass_s.end());
  const auto at = [&](double share) {
    return pass_s[static_cast<size_t>(share * static_cast<double>(pass_s.size() - 1))];
  };
  median_s = at(0.5);
  best_s = pass_s.front();
  mean_s = std::accumulate(pass_s.begin(), pass_s.end(), 0.0) / static_cast<double>(pass_s.size());
  spread = (at(0.9) - at(0.1)) / median_s;
}

InferTimer::InferTimer(const Ctx& ctx, const Model& model, KeySelection selection, CacheForm cache,
                       int64_t max_depth, int64_t max_rows, int64_t sequences)
    : model_(model),
      selection_(selection),
      cache_(ctx.arena, model.config,
             std::max(pages_for(max_depth + max_rows), sequences * pages_for(max_depth + 1)),
             cache) {
  const ModelConfig& c = model.config;
  for (int64_t layer = 0; layer < c.num_layers(); ++layer)
    for (const KvCache::Kind kind : {KvCache::Kind::kLatent, KvCache::Kind::kIndex}) {
      if (kind == KvCache::Kind::kIndex && !(c.has_dsa() && c.has_indexer(layer))) continue;
      const int64_t n = kPageTokens * cache_.width(kind);
      const uint64_t key = Rng(1, "bench keys", static_cast<uint64_t>(layer)).key();
      ctx.pool.parallel_for(cache_.num_pages(), 8, [&](int64_t begin, int64_t end, int) {
        std::vector<float> rows(static_cast<size_t>(n));
        for (int64_t p = begin; p < end; ++p) {
          fill_random(rows.data(), n, key, static_cast<uint64_t>(p * n));
          cache_.put(ctx, kind, cache_.page(kind, layer, p), 0,
                     make_view(rows.data(), DType::kF32, {kPageTokens, cache_.width(kind)}));
        }
      });
    }
  Rng rng(1, "bench tokens");
  for (int64_t i = 0; i < kVariety + std::max(max_rows, sequences); ++i)
    tokens_.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
}

// Which token of the list the next timed pass begins with.
int64_t InferTimer::next_tokens(int64_t count) {
  const int64_t first = turn_;
  turn_ = (turn_ + count) % kVariety;
  return first;
}

// Rows from position `first` on.
Step InferTimer::make_step(int64_t token, int64_t rows, int64_t first) {
  Step step;
  step.selection = selection_;
  step.cache.cache = &cache_;
  step.add_sequence({tokens_.begin() + token, tokens_.begin() + token + rows}, first);
  step.cache.first_page.push_back(0);
  for (int64_t p = 0; p < pages_for(first + rows); ++p)
    step.cache.page.push_back(static_cast<int32_t>(p));
  return step;
}

InferTimer::Pass InferTimer::forward_rows(Ctx& ctx, int64_t token, int64_t rows, int64_t first,
                                          bool all_logits) {
  Pass out;
  out.hidden_TD = forward(ctx, model_, make_step(token, rows, first)).hidden_TD;
  const auto last = static_cast<int32_t>(rows - 1);
  const Value head_rows = all_logits ? out.hidden_TD : select_rows(ctx, out.hidden_TD, &last, 1);
  out.logits_TW = logits(ctx, model_, head_rows);
  return out;
}

TimedPass InferTimer::run(Ctx& ctx, int64_t depth, int64_t rows, double seconds) {
  return time_passes(seconds, [&] { forward_rows(ctx, next_tokens(rows), rows, depth, false); });
}

TimedPass InferTimer::run_sequences(Ctx& ctx, int64_t depth, int64_t sequences, double seconds) {
  return time_passes(seconds, [&] {
    Step step;
    step.selection = selection_;
    step.cache.cache = &cache_;
    const int64_t token = next_tokens(sequences);
    for (int64_t b = 0; b < sequences; ++b) {
      step.add_sequence({tokens_[static_cast<size_t>(token + b)]}, depth);
      step.cache.first_page.push_back(static_cast<int32_t>(step.cache.page.size()));
      for (int64_t p = 0; p < pages_for(depth + 1); ++p)
        step.cache.page.push_back(static_cast<int32_t>(step.cache.page.size()));
    }
    logits(ctx, model_, forward(ctx, model_, step).hidden_TD);
  });
}

TimedPass InferTimer::run_with_drafts(Ctx& ctx, int64_t depth, int64_t drafts, double seconds) {
  return time_passes(seconds, [&] {
    const int64_t token = next_tokens(1 + drafts);
    Value hidden_TD = forward_rows(ctx, token, 1 + drafts, depth, true).hidden_TD;
    std::vector<LayerOut> unused;
    for (int64_t i = 0; i < drafts; ++i) {
      const int64_t rows = hidden_TD->dim[0];
      hidden_TD =
          mtp_forward(ctx, model_, 0, hidden_TD, make_step(token, rows, depth + i), &unused);
      const auto last = static_cast<int32_t>(rows - 1);
      hidden_TD = select_rows(ctx, hidden_TD, &last, 1);
      logits(ctx, model_, hidden_TD);
    }
  });
}

bool InferTimer::same_bits(Ctx& ctx, int64_t depth, int64_t rows) {
  const Pass whole = forward_rows(ctx, 0, rows, depth, true);
  const auto same = [](const View& part, const View& all, int64_t row) {
    const auto bytes = static_cast<size_t>(part.size_bytes());
    return std::memcmp(part.data, all.at_element(row * all.last()), bytes) == 0;
  };
  for (int64_t t = 0; t < rows; ++t) {
    const Pass one = forward_rows(ctx, t, 1, depth + t, true);
    if (!same(one.hidden_TD.view(), whole.hidden_TD.view(), t) ||
        !same(one.logits_TW.view(), whole.logits_TW.view(), t))
      return false;
  }
  return true;
}

}  // namespace fathom
