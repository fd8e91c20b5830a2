// Reference attention over expanded keys and values (naive form) and its adjoint.
#include <cmath>

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {

void attention_mha(const Exec& exec, const AttentionMha& a) {
  const int64_t T = a.q_nope.dim[0], H = a.q_nope.dim[1];
  const int64_t N = a.q_nope.dim[2], R = a.q_pe.dim[2], V = a.v.dim[2];
  by_real(a.q_nope.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(T, 1, [&](int64_t t, int64_t, int) {
      const RowPlace place = place_of(a.rows, t);
      const int64_t first = a.rows.first_row[place.seq];
      std::vector<int64_t> keys;
      visible_keys(a.sel, t, place.pos, &keys);
      std::vector<double> p(keys.size()), o(static_cast<size_t>(V));
      for (int64_t h = 0; h < H; ++h) {
        for (size_t n = 0; n < keys.size(); ++n) {
          const int64_t s = first + keys[n];
          p[n] = a.scale * (dot(at<Real>(a.q_nope, t, h), at<Real>(a.k_nope, s, h), N) +
                            dot(at<Real>(a.q_pe, t, h), at<Real>(a.k_pe, s), R));
        }
        const double lse = softmax(&p);
        if (a.lse) at<Real>(a.lse, t)[h] = static_cast<Real>(lse);
        o.assign(o.size(), 0.0);
        for (size_t n = 0; n < keys.size(); ++n) {
          const Real* value = at<Real>(a.v, first + keys[n], h);
          for (int64_t i = 0; i < V; ++i)
            o[static_cast<size_t>(i)] += p[n] * static_cast<double>(value[i]);
        }
        store_sums(o, at<Real>(a.o, t, h), false);
      }
    });
  });
}

namespace {

// Sums of one sequence that its query rows add to, row-major.
struct KeySums {
  std::vector<double> k_nope, v, k_pe;  // [S,H,N], [S,H,V], [S,R]
};

template <class Real>
void backward_row(const AttentionMhaBwd& a, int64_t first, int64_t pos, int64_t h, KeySums* sums) {
  const int64_t H = a.q_nope.dim[1], N = a.q_nope.dim[2], R = a.q_pe.dim[2], V = a.v.dim[2];
  const int64_t t = first + pos;
  const Real *q = at<Real>(a.q_nope, t, h), *pe = at<Real>(a.q_pe, t, h);
  const Real* d_o = at<Real>(a.d_o, t, h);
  const double delta = dot(d_o, at<Real>(a.o, t, h), V);
  const double lse = static_cast<double>(at<Real>(a.lse, t)[h]);
  std::vector<double> dq(static_cast<size_t>(N)), dq_pe(static_cast<size_t>(R));
  std::vector<int64_t> keys;
  visible_keys(a.sel, t, pos, &keys);
  for (const int64_t s : keys) {
    const Real *k = at<Real>(a.k_nope, first + s, h), *k_pe = at<Real>(a.k_pe, first + s);
    const double p = std::exp(a.scale * (dot(q, k, N) + dot(pe, k_pe, R)) - lse);
    const double ds = a.scale * p * (dot(d_o, at<Real>(a.v, first + s, h), V) - delta);
    double* dk = sums->k_nope.data() + (s * H + h) * N;
    double* dv = sums->v.data() + (s * H + h) * V;
    double* dk_pe = sums->k_pe.data() + s * R;
    for (int64_t i = 0; i < N; ++i) {
      dq[static_cast<size_t>(i)] += ds * static_cast<double>(k[i]);
      dk[i] += ds * static_cast<double>(q[i]);
    }
    for (int64_t i = 0; i < R; ++i) {
      dq_pe[static_cast<size_t>(i)] += ds * static_cast<double>(k_pe[i]);
      dk_pe[i] += ds * static_cast<double>(pe[i]);
    }
    for (int64_t i = 0; i < V; ++i) dv[i] += p * static_cast<double>(d_o[i]);
  }
  if (a.dq_nope) store_sums(dq, at<Real>(a.dq_nope, t, h), a.add_dq_nope);
  if (a.dq_pe) store_sums(dq_pe, at<Real>(a.dq_pe, t, h), a.add_dq_pe);
}

template <class Real>
void store_row(const double* sums, int64_t n, Real* y, bool add) {
  store_sums(std::vector<double>(sums, sums + n), y, add);
}

template <class Real>
void attention_mha_bwd_sequence(const AttentionMhaBwd& a, int64_t first, int64_t size) {
  const int64_t H = a.q_nope.dim[1], N = a.q_nope.dim[2], R = a.q_pe.dim[2], V = a.v.dim[2];
  KeySums sums{std::vector<double>(static_cast<size_t>(size * H * N)),
               std::vector<double>(static_cast<size_t>(size * H * V)),
               std::vector<double>(static_cast<size_t>(size * R))};
  for (int64_t pos = 0; pos < size; ++pos)
    for (int64_t h = 0; h < H; ++h) backward_row<Real>(a, first, pos, h, &sums);
  for (int64_t s = 0; s < size; ++s) {
    const int64_t t = first + s;
    for (int64_t h = 0; h < H; ++h) {
      const int64_t row = s * H + h;
      if (a.dk_nope)
        store_row(sums.k_nope.data() + row * N, N, at<Real>(a.dk_nope, t, h), a.add_dk_nope);
      if (a.dv) store_row(sums.v.data() + row * V, V, at<Real>(a.dv, t, h), a.add_dv);
    }
    if (a.dk_pe) store_row(sums.k_pe.data() + s * R, R, at<Real>(a.dk_pe, t), a.add_dk_pe);
  }
}

}  // namespace

void attention_mha_bwd(const Exec& exec, const AttentionMhaBwd& a) {
  by_real(a.q_nope.dtype, [&]<class Real>(Real) {
    exec.pool->parallel_for(a.rows.num_seq, 1, [&](int64_t b, int64_t, int) {
      const int64_t first = a.rows.first_row[b];
      FM_CHECK(a.rows.first_pos[b] == 0, "sequence {} starts at {}", b, a.rows.first_pos[b]);
      attention_mha_bwd_sequence<Real>(a, first, a.rows.first_row[b + 1] - first);
    });
  });
}

}  // namespace fathom::ref
