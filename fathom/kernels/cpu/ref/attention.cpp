// Reference attention over the shared latent (absorbed form) and its adjoint: a full row of scores
// at a time.
#include <cmath>
#include <limits>

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

double softmax(std::vector<double>* scores) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  if (scores->empty()) return top;
  for (const double s : *scores) top = std::max(top, s);
  for (double& s : *scores) sum += s = std::exp(s - top);
  for (double& s : *scores) s /= sum;
  return top + std::log(sum);
}

void latent_code(const Exec&, const LatentCode& a) {
  const int64_t width = a.x.dim[1], rest = width - a.coded;
  std::vector<float> x(static_cast<size_t>(width));
  auto* row = static_cast<char*>(a.rows);
  for (int64_t m = 0; m < a.x.dim[0]; ++m, row += coded_row_bytes(a.coded, rest)) {
    by_real(a.x.dtype, [&]<class Real>(Real) {
      const Real* from = at<Real>(a.x, m);
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(from[i]);
    });
    for (int64_t i = 0; i < a.coded; i += 128) {
      const float scale = code_numbers(x.data() + i, std::min(int64_t{128}, a.coded - i),
                                       reinterpret_cast<int8_t*>(row) + i);
      std::memcpy(row + coded_scales_at(a.coded) + i / 128 * 4, &scale, sizeof scale);
    }
    for (int64_t i = a.coded; i < width; ++i) {
      const bf16 half = to_bf16(x[static_cast<size_t>(i)]);
      std::memcpy(row + coded_rest_at(a.coded) + 2 * (i - a.coded), &half, sizeof half);
    }
  }
}

void attention(const Exec& exec, const Attention& a) {
  const int64_t T = a.q_lat.dim[0], H = a.q_lat.dim[1], C = a.q_lat.dim[2], R = a.q_pe.dim[2];
  by_real(a.q_lat.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(T, 1, [&](int64_t t, int64_t, int) {
      const RowPlace place = place_of(a.rows, t);
      std::vector<int64_t> keys;
      visible_keys(a.sel, t, place.pos, &keys);
      std::vector<double> p(keys.size()), z(static_cast<size_t>(C));
      const auto key = [&](size_t n, int64_t i) {
        return key_element(a.keys, place.seq, keys[n], i);
      };
      for (int64_t h = 0; h < H; ++h) {
        const Real *q = at<Real>(a.q_lat, t, h), *q_pe = at<Real>(a.q_pe, t, h);
        for (size_t n = 0; n < keys.size(); ++n) {
          double sum = 0;
          for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(q[c]) * key(n, c);
          for (int64_t r = 0; r < R; ++r) sum += static_cast<double>(q_pe[r]) * key(n, C + r);
          p[n] = sum * a.scale;
        }
        const double lse = softmax(&p);
        if (a.lse) at<Real>(a.lse, t)[h] = static_cast<Real>(lse);
        z.assign(z.size(), 0.0);
        for (size_t n = 0; n < keys.size(); ++n)
          for (int64_t c = 0; c < C; ++c) z[static_cast<size_t>(c)] += p[n] * key(n, c);
        store_sums(z, at<Real>(a.z, t, h), false);
      }
    });
  });
}

namespace {

// One sequence: query rows in ascending order, so that the sums in dkv are too.
template <class Real>
void attention_bwd_sequence(const AttentionBwd& a, int64_t first, int64_t size) {
  const int64_t H = a.q_lat.dim[1], C = a.q_lat.dim[2], R = a.q_pe.dim[2];
  std::vector<std::vector<double>> dkv(static_cast<size_t>(size),
                                       std::vector<double>(static_cast<size_t>(C + R)));
  std::vector<double> dq(static_cast<size_t>(C)), dq_pe(static_cast<size_t>(R));
  std::vector<int64_t> keys;
  for (int64_t pos = 0; pos < size; ++pos) {
    const int64_t t = first + pos;
    visible_keys(a.sel, t, pos, &keys);
    for (int64_t h = 0; h < H; ++h) {
      const Real *q = at<Real>(a.q_lat, t, h), *pe = at<Real>(a.q_pe, t, h);
      const Real* dz = at<Real>(a.dz, t, h);
      const double delta = dot(dz, at<Real>(a.z, t, h), C);
      const double lse = static_cast<double>(at<Real>(a.lse, t)[h]);
      dq.assign(dq.size(), 0.0);
      dq_pe.assign(dq_pe.size(), 0.0);
      for (const int64_t s : keys) {
        const Real* k = at<Real>(a.kv, first + s);
        const double score = a.scale * (dot(q, k, C) + dot(pe, k + C, R));
        const double p = std::exp(score - lse);
        const double ds = a.scale * p * (dot(dz, k, C) - delta);
        double* dk = dkv[static_cast<size_t>(s)].data();
        for (int64_t c = 0; c < C; ++c) {
          dq[static_cast<size_t>(c)] += ds * static_cast<double>(k[c]);
          dk[c] += p * static_cast<double>(dz[c]) + ds * static_cast<double>(q[c]);
        }
        for (int64_t r = 0; r < R; ++r) {
          dq_pe[static_cast<size_t>(r)] += ds * static_cast<double>(k[C + r]);
          dk[C + r] += ds * static_cast<double>(pe[r]);
        }
      }
      if (a.dq_lat) store_sums(dq, at<Real>(a.dq_lat, t, h), a.add_dq_lat);
      if (a.dq_pe) store_sums(dq_pe, at<Real>(a.dq_pe, t, h), a.add_dq_pe);
    }
  }
  if (!a.dkv) return;
  for (int64_t s = 0; s < size; ++s)
    store_sums(dkv[static_cast<size_t>(s)], at<Real>(a.dkv, first + s), a.add_dkv);
}

}  // namespace

void attention_bwd(const Exec& exec, const AttentionBwd& a) {
  by_real(a.q_lat.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(a.rows.num_seq, 1, [&](int64_t b, int64_t, int) {
      const int64_t first = a.rows.first_row[b];
      FM_CHECK(a.rows.first_pos[b] == 0, "sequence {} starts at {}", b, a.rows.first_pos[b]);
      attention_bwd_sequence<Real>(a, first, a.rows.first_row[b + 1] - first);
    });
  });
}

}  // namespace fathom::ref
