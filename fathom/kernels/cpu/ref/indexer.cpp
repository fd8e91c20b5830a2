// Reference lightning indexer: scores, the token selector, and the loss that trains it.
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

std::vector<int32_t> best_scored(const std::vector<double>& scores, int64_t topk) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t s) {  // NaN stands with -inf, behind everything else
    const double x = scores[static_cast<size_t>(s)];
    return std::isnan(x) ? -std::numeric_limits<double>::infinity() : x;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  if (static_cast<int64_t>(order.size()) > topk) order.resize(static_cast<size_t>(topk));
  std::sort(order.begin(), order.end());
  return order;
}

float code_index_row(float* x, int64_t I, int8_t* codes) {
  if (std::has_single_bit(static_cast<uint64_t>(I)))
    for (int64_t step = 1; step < I; step *= 2)
      for (int64_t i = 0; i < I; ++i) {
        if (i & step) continue;
        const float p = x[i], q = x[i + step];
        x[i] = p + q;
        x[i + step] = p - q;
      }
  return code_numbers(x, I, codes);
}

float code_numbers(const float* x, int64_t n, int8_t* codes) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    most = std::max(most, std::abs(x[i]));
    finite &= std::isfinite(x[i]);
  }
  if (!finite || most < 1e-30f) {
    std::fill_n(codes, n, int8_t{0});
    return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const float inverse = 127.0f / most;
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return most / 127.0f;
}

void index_code(const Exec&, const IndexCode& a) {
  const int64_t I = a.x.dim[1];
  auto* page = static_cast<uint8_t*>(a.page);
  std::vector<float> row(static_cast<size_t>(I));
  std::vector<int8_t> codes(static_cast<size_t>(I + 3), 0);
  for (int64_t m = 0; m < a.x.dim[0]; ++m) {
    by_real(a.x.dtype, [&]<class Real>(Real) {
      const Real* x = at<Real>(a.x, m);
      for (int64_t i = 0; i < I; ++i) row[static_cast<size_t>(i)] = static_cast<float>(x[i]);
    });
    const float scale = code_index_row(row.data(), I, codes.data());
    for (int64_t i = 0; i < (I + 3) / 4 * 4; ++i)
      page[index_code_at(I, a.first + m, i / 4 * 4) + i % 4] =
          static_cast<uint8_t>(codes[static_cast<size_t>(i)] + 128);
    std::memcpy(page + index_scales_at(I) + (a.first + m) * 4, &scale, sizeof scale);
  }
}

namespace {

// The same of keys in codes.
template <class Real>
std::vector<double> score_coded_row(const View& q, const View& w, const KeyPages& keys, int64_t t,
                                    RowPlace place) {
  const int64_t J = q.dim[1], I = q.dim[2];
  const bool rotated = std::has_single_bit(static_cast<uint64_t>(I));
  std::vector<float> row(static_cast<size_t>(I)), factor(static_cast<size_t>(J));
  std::vector<int8_t> codes(static_cast<size_t>(J * I));
  for (int64_t j = 0; j < J; ++j) {
    const Real* x = at<Real>(q, t, j);
    for (int64_t i = 0; i < I; ++i) row[static_cast<size_t>(i)] = static_cast<float>(x[i]);
    const float scale = code_index_row(row.data(), I, codes.data() + j * I);
    const float share = rotated ? scale * (1 / static_cast<float>(I)) : scale;
    factor[static_cast<size_t>(j)] = static_cast<float>(at<Real>(w, t)[j]) * share;
  }
  std::vector<double> scores(static_cast<size_t>(place.pos + 1));
  for (int64_t s = 0; s <= place.pos; ++s) {
    const auto* page =
        static_cast<const uint8_t*>(keys.page[keys.first_page[place.seq] + s / kPageTokens]);
    double sum = 0;
    for (int64_t j = 0; j < J; ++j) {
      int32_t dot = 0;
      for (int64_t i = 0; i < I; ++i)
        dot += codes[static_cast<size_t>(j * I + i)] *
               (page[index_code_at(I, s % kPageTokens, i / 4 * 4) + i % 4] - 128);
      sum += static_cast<double>(factor[static_cast<size_t>(j)]) * std::max(dot, 0);
    }
    float scale = 0;
    std::memcpy(&scale, page + index_scales_at(I) + s % kPageTokens * 4, sizeof scale);
    scores[static_cast<size_t>(s)] = static_cast<double>(scale) * sum;
  }
  return scores;
}

// I[t, 0 .. pos]
template <class Real>
std::vector<double> score_row(const View& q, const View& w, const KeyPages& keys, int64_t t,
                              RowPlace place) {
  if (keys.dtype == DType::kI8) return score_coded_row<Real>(q, w, keys, t, place);
  const int64_t J = q.dim[1], I = q.dim[2];
  std::vector<double> scores(static_cast<size_t>(place.pos + 1)), key(static_cast<size_t>(I));
  for (int64_t s = 0; s <= place.pos; ++s) {
    for (int64_t i = 0; i < I; ++i)
      key[static_cast<size_t>(i)] = key_element(keys, place.seq, s, i);
    for (int64_t j = 0; j < J; ++j) {
      double x = 0;
      for (int64_t i = 0; i < I; ++i)
        x += static_cast<double>(at<Real>(q, t, j)[i]) * key[static_cast<size_t>(i)];
      // Written so that a NaN stays one.
      scores[static_cast<size_t>(s)] += static_cast<double>(at<Real>(w, t)[j]) * (x <= 0 ? 0 : x);
    }
  }
  return scores;
}

}  // namespace

void index_select(const Exec& exec, const IndexSelect& a) {
  by_real(a.q.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(a.q.dim[0], 1, [&](int64_t t, int64_t, int) {
      const RowPlace place = place_of(a.rows, t);
      const std::vector<double> scores = score_row<Real>(a.q, a.w, a.keys, t, place);
      const std::vector<int32_t> best = best_scored(scores, a.sel.dim[1]);
      int32_t* row = at<int32_t>(a.sel, t);
      std::fill(std::copy(best.begin(), best.end(), row), row + a.sel.dim[1], -1);
    });
  });
}

void index_scores(const Exec& exec, const IndexScores& a) {
  by_real(a.q.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(a.q.dim[0], 1, [&](int64_t t, int64_t, int) {
      const RowPlace place = place_of(a.rows, t);
      FM_CHECK(place.pos < a.scores.dim[1], "row {} has {} keys, room for {}", t, place.pos + 1,
               a.scores.dim[1]);
      std::vector<double> scores = score_row<Real>(a.q, a.w, a.keys, t, place);
      scores.resize(static_cast<size_t>(a.scores.dim[1]), 0.0);
      store_sums(scores, at<Real>(a.scores, t), false);
    });
  });
}

namespace {

// p of one row: the heads' probabilities added and normalised over `keys`.
template <class Real>
std::vector<double> attention_mass(const IndexKl& a, int64_t t, int64_t first,
                                   const std::vector<int64_t>& keys) {
  const int64_t H = a.q_lat.dim[1], C = a.q_lat.dim[2], R = a.q_pe.dim[2];
  std::vector<double> p(keys.size());
  double total = 0;
  for (size_t n = 0; n < keys.size(); ++n) {
    const Real* key = at<Real>(a.kv, first + keys[n]);
    for (int64_t h = 0; h < H; ++h) {
      const double score = a.attn_scale * (dot(at<Real>(a.q_lat, t, h), key, C) +
                                           dot(at<Real>(a.q_pe, t, h), key + C, R));
      p[n] += std::exp(score - static_cast<double>(at<Real>(a.lse, t)[h]));
    }
    total += p[n];
  }
  for (double& x : p) x /= total;
  return p;
}

// The gradient of one row from d = dI; dk [S,I] is added to.
template <class Real>
void index_row_backward(const IndexKl& a, int64_t t, int64_t first,
                        const std::vector<int64_t>& keys, const std::vector<double>& dots,
                        const std::vector<double>& d, std::vector<double>* dk) {
  const int64_t J = a.q.dim[1], I = a.q.dim[2];
  std::vector<double> dw(static_cast<size_t>(J));
  for (int64_t j = 0; j < J; ++j) {
    const Real* q = at<Real>(a.q, t, j);
    const double w = static_cast<double>(at<Real>(a.w, t)[j]);
    std::vector<double> dq(static_cast<size_t>(I));
    for (size_t n = 0; n < keys.size(); ++n) {
      const double x = dots[static_cast<size_t>(j) * keys.size() + n];
      if (!(x > 0)) continue;
      dw[static_cast<size_t>(j)] += d[n] * x;
      const Real* k = at<Real>(a.k, first + keys[n]);
      for (int64_t i = 0; i < I; ++i) {
        dq[static_cast<size_t>(i)] += d[n] * w * static_cast<double>(k[i]);
        (*dk)[static_cast<size_t>(keys[n] * I + i)] += d[n] * w * static_cast<double>(q[i]);
      }
    }
    store_sums(dq, at<Real>(a.dq, t, j), false);
  }
  store_sums(dw, at<Real>(a.dw, t), false);
}

template <class Real>
void index_kl_sequence(const IndexKl& a, int64_t seq) {
  const int64_t first = a.rows.first_row[seq], size = a.rows.first_row[seq + 1] - first;
  const int64_t I = a.q.dim[2];
  std::vector<double> dk(static_cast<size_t>(size * I));
  std::vector<int64_t> keys;
  for (int64_t pos = 0; pos < size; ++pos) {
    const int64_t t = first + pos, J = a.q.dim[1];
    visible_keys(a.sel, t, pos, &keys);
    std::vector<double> scores(keys.size()), dots(keys.size() * static_cast<size_t>(J));
    for (int64_t j = 0; j < J; ++j)
      for (size_t n = 0; n < keys.size(); ++n) {
        const double x = dot(at<Real>(a.q, t, j), at<Real>(a.k, first + keys[n]), I);
        dots[static_cast<size_t>(j) * keys.size() + n] = x;
        scores[n] += static_cast<double>(at<Real>(a.w, t)[j]) * std::max(x, 0.0);
      }
    const std::vector<double> p = attention_mass<Real>(a, t, first, keys);
    if (a.mass) {
      double mass = 0;
      for (const int32_t n : best_scored(scores, a.mass_topk)) mass += p[static_cast<size_t>(n)];
      at<Real>(a.mass, t)[0] = static_cast<Real>(mass);
    }
    std::vector<double> d = scores;  // becomes softmax(I), then dI
    const double lse = softmax(&d);
    double kl = 0;
    for (size_t n = 0; n < keys.size(); ++n) {
      if (p[n] > 0) kl += p[n] * (std::log(p[n]) - (scores[n] - lse));
      d[n] = a.scale * (d[n] - p[n]);
    }
    at<Real>(a.kl, t)[0] = static_cast<Real>(kl);
    if (a.dq) index_row_backward<Real>(a, t, first, keys, dots, d, &dk);
  }
  if (!a.dk) return;
  for (int64_t s = 0; s < size; ++s)
    for (int64_t i = 0; i < I; ++i)
      at<Real>(a.dk, first + s)[i] = static_cast<Real>(dk[static_cast<size_t>(s * I + i)]);
}

}  // namespace

void index_kl(const Exec& exec, const IndexKl& a) {
  by_real(a.q.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(a.rows.num_seq, 1, [&](int64_t b, int64_t, int) {
      FM_CHECK(a.rows.first_pos[b] == 0, "sequence {} starts at {}", b, a.rows.first_pos[b]);
      index_kl_sequence<Real>(a, b);
    });
  });
}

}  // namespace fathom::ref
