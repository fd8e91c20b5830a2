// Rows of the bench: attention in both forms, the per-head products of the absorbed form, indexer.
#include <algorithm>
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/kernels/bench_job.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using Sizes = RowBenchSizes;

std::string shape_latent(const Sizes& s) {
  return fmt::format("{}x{} H={} C={} R={}", s.num_seq, s.L, s.H, s.C, s.R);
}
std::string shape_latent_sel(const Sizes& s) {
  return fmt::format("{}x{} H={} C={} K={}", s.num_seq, s.L, s.H, s.C, s.K);
}
std::string shape_mha(const Sizes& s) {
  return fmt::format("{}x{} H={} N={} R={} V={}", s.num_seq, s.L, s.H, s.N, s.R, s.V);
}
std::string shape_index(const Sizes& s) {
  return fmt::format("{}x{} J={} I={} K={}", s.num_seq, s.L, s.J, s.I, s.K);
}
std::string shape_head(const Sizes& s) {
  return fmt::format("T={} H={} N={} K={}", s.T, s.H, s.V, s.C);
}
std::string shape_head_plain(const Sizes& s) {
  return fmt::format("T={} H={} N={} K={}", s.T, s.H, s.C, s.N);
}

int64_t rows_of(const Sizes& s) { return s.num_seq * s.L; }

// Pairs of a query and a key that take part; with `topk` at most so many for a query.
double num_pairs(const Sizes& s, int64_t topk = INT64_MAX) {
  double pairs = 0;
  for (int64_t t = 0; t < s.L; ++t) pairs += static_cast<double>(std::min(t + 1, topk));
  return pairs * static_cast<double>(s.num_seq);
}

// Sequences of equal length, each from position 0, whose keys are the rows of a tensor.
struct Sequences {
  std::vector<int32_t> first_row{0}, first_pos, first_page;
  std::vector<const void*> page;
  Tensor keys;

  Sequences(const Sizes& s, Tensor rows) : keys(std::move(rows)) {
    const int64_t width = keys.view.dim[1];
    for (int64_t b = 0; b < s.num_seq; ++b) {
      first_row.push_back(static_cast<int32_t>((b + 1) * s.L));
      first_pos.push_back(0);
      first_page.push_back(static_cast<int32_t>(page.size()));
      for (int64_t p = 0; p < s.L; p += kPageTokens)
        page.push_back(keys.view.at_element((b * s.L + p) * width));
    }
  }
  QueryRows rows() const {
    return {static_cast<int64_t>(first_pos.size()), first_row.data(), first_pos.data()};
  }
  KeyPages pages() const {
    return {page.data(), first_page.data(), keys.view.dim[1], keys.view.dtype};
  }
};

struct Indexer {
  Sequences seq;
  Tensor q, w;
  Indexer(RowMaker& m, bool coarse)
      : seq(m.s, m.input({rows_of(m.s), m.s.I}, 1, coarse)),
        q(m.input({rows_of(m.s), m.s.J, m.s.I}, 1, coarse)),
        w(m.input({rows_of(m.s), m.s.J}, 1, coarse)) {}
};

// A choice of keys as the indexer makes it.
Tensor selection(RowMaker& m) {
  const Indexer x(m, true);
  const Tensor sel = empty(*m.exec.arena, DType::kI32, {rows_of(m.s), m.s.K});
  cpu_ref().index_select(
      m.exec, {.q = x.q, .w = x.w, .rows = x.seq.rows(), .keys = x.seq.pages(), .sel = sel});
  return sel;
}

struct Latent {
  Tensor q_lat, q_pe, sel;
  Sequences seq;
  double scale, pairs;
  Latent(RowMaker& m, bool sparse)
      : q_lat(m.input({rows_of(m.s), m.s.H, m.s.C})),
        q_pe(m.input({rows_of(m.s), m.s.H, m.s.R})),
        sel(sparse ? selection(m) : Tensor{}),
        seq(m.s, m.input({rows_of(m.s), m.s.C + m.s.R})),
        scale(1 / std::sqrt(static_cast<double>(m.s.N + m.s.R))),
        pairs(sparse ? num_pairs(m.s, m.s.K) : num_pairs(m.s)) {}
  void forward(const Kernels& k, const Exec& e, const Tensor& z, const Tensor& lse) const {
    k.attention(e, {.q_lat = q_lat,
                    .q_pe = q_pe,
                    .rows = seq.rows(),
                    .keys = seq.pages(),
                    .sel = sel,
                    .scale = scale,
                    .z = z,
                    .lse = lse});
  }
};

// Flop of products over `dims` numbers, for all heads.
double head_flop(int64_t heads, double pairs, int64_t dims) {
  return 2 * pairs * static_cast<double>(heads * dims);
}

template <bool sparse>
RowJob attention(RowMaker& m) {
  const Sizes& s = m.s;
  const Latent x(m, sparse);
  const Tensor z = m.output({rows_of(s), s.H, s.C}), lse = m.output({rows_of(s), s.H});
  return {[=](const Kernels& k, const Exec& e) { x.forward(k, e, z, lse); },
          head_flop(s.H, x.pairs, 2 * s.C + s.R)};
}

template <bool sparse>
RowJob attention_bwd(RowMaker& m) {
  const Sizes& s = m.s;
  const int64_t T = rows_of(s);
  const Latent x(m, sparse);
  const Tensor z = empty(*m.exec.arena, DType::kF32, {T, s.H, s.C}),
               lse = empty(*m.exec.arena, DType::kF32, {T, s.H}), dz = m.input({T, s.H, s.C}),
               dq_lat = m.output({T, s.H, s.C}), dq_pe = m.output({T, s.H, s.R}),
               dkv = m.output({T, s.C + s.R});
  x.forward(cpu_ref(), m.exec, z, lse);
  return {[=](const Kernels& k, const Exec& e) {
            k.attention_bwd(e, {.q_lat = x.q_lat,
                                .q_pe = x.q_pe,
                                .rows = x.seq.rows(),
                                .kv = x.seq.keys,
                                .sel = x.sel,
                                .scale = x.scale,
                                .z = z,
                                .lse = lse,
                                .dz = dz,
                                .dq_lat = dq_lat,
                                .dq_pe = dq_pe,
                                .dkv = dkv});
          },
          head_flop(s.H, x.pairs, 3 * (s.C + s.R) + 2 * s.C)};
}

struct Naive {
  Tensor q_nope, q_pe, k_nope, v;
  Sequences seq;  // of k_pe
  double scale;
  explicit Naive(RowMaker& m)
      : q_nope(m.input({rows_of(m.s), m.s.H, m.s.N})),
        q_pe(m.input({rows_of(m.s), m.s.H, m.s.R})),
        k_nope(m.input({rows_of(m.s), m.s.H, m.s.N})),
        v(m.input({rows_of(m.s), m.s.H, m.s.V})),
        seq(m.s, m.input({rows_of(m.s), m.s.R})),
        scale(1 / std::sqrt(static_cast<double>(m.s.N + m.s.R))) {}
  void forward(const Kernels& k, const Exec& e, const Tensor& o, const Tensor& lse) const {
    k.attention_mha(e, {.q_nope = q_nope,
                        .q_pe = q_pe,
                        .k_nope = k_nope,
                        .v = v,
                        .k_pe = seq.keys,
                        .rows = seq.rows(),
                        .sel = {},
                        .scale = scale,
                        .o = o,
                        .lse = lse});
  }
};

RowJob attention_mha(RowMaker& m) {
  const Sizes& s = m.s;
  const Naive x(m);
  const Tensor o = m.output({rows_of(s), s.H, s.V}), lse = m.output({rows_of(s), s.H});
  return {[=](const Kernels& k, const Exec& e) { x.forward(k, e, o, lse); },
          head_flop(s.H, num_pairs(s), s.N + s.R + s.V)};
}

RowJob attention_mha_bwd(RowMaker& m) {
  const Sizes& s = m.s;
  const int64_t T = rows_of(s);
  const Naive x(m);
  const Tensor o = empty(*m.exec.arena, DType::kF32, {T, s.H, s.V}),
               lse = empty(*m.exec.arena, DType::kF32, {T, s.H}), d_o = m.input({T, s.H, s.V}),
               dq_nope = m.output({T, s.H, s.N}), dq_pe = m.output({T, s.H, s.R}),
               dk_nope = m.output({T, s.H, s.N}), dv = m.output({T, s.H, s.V}),
               dk_pe = m.output({T, s.R});
  x.forward(cpu_ref(), m.exec, o, lse);
  return {[=](const Kernels& k, const Exec& e) {
            k.attention_mha_bwd(e, {.q_nope = x.q_nope,
                                    .q_pe = x.q_pe,
                                    .k_nope = x.k_nope,
                                    .v = x.v,
                                    .k_pe = x.seq.keys,
                                    .rows = x.seq.rows(),
                                    .sel = {},
                                    .scale = x.scale,
                                    .o = o,
                                    .lse = lse,
                                    .d_o = d_o,
                                    .dq_nope = dq_nope,
                                    .dq_pe = dq_pe,
                                    .dk_nope = dk_nope,
                                    .dv = dv,
                                    .dk_pe = dk_pe});
          },
          head_flop(s.H, num_pairs(s), 3 * (s.N + s.R) + 2 * s.V)};
}

// Weights of all heads and, where the backend has one, their packed form.
struct HeadWeights {
  std::vector<Tensor> raw;
  std::vector<std::shared_ptr<std::byte>> memory;
  std::vector<PackedB> packed;
  bool transposed;

  HeadWeights(RowMaker& m, int64_t rows, int64_t columns, bool forward) : transposed(forward) {
    for (int64_t h = 0; h < m.s.H; ++h) {
      raw.push_back(m.input({rows, columns}));
      PackWeight p{.raw = raw.back(), .scale = {}, .transposed = !forward};
      const int64_t bytes = m.kernels.packed_bytes(p);
      if (bytes == 0) continue;
      memory.push_back(m.exec.arena->allocate(bytes));
      packed.emplace_back();
      p.dst = memory.back().get();
      p.out = &packed.back();
      m.kernels.pack(m.exec, p);
    }
  }
  std::vector<WeightRef> refs() const {
    std::vector<WeightRef> out;
    for (size_t h = 0; h < raw.size(); ++h) {
      out.push_back({.raw = raw[h], .scale = {}});
      if (!packed.empty()) (transposed ? out[h].packed : out[h].packed_t) = &packed[h];
    }
    return out;
  }
};

// transposed: the values of all heads, W [V,C]; else the absorbed queries, W [N,C].
template <bool transposed>
RowJob head_linear(RowMaker& m) {
  const Sizes& s = m.s;
  const HeadWeights w(m, transposed ? s.V : s.N, s.C, transposed);
  const int64_t K = transposed ? s.C : s.N, N = transposed ? s.V : s.C;
  const Tensor x = m.input({s.T, s.H, K}), y = m.output({s.T, s.H, N});
  return {[=](const Kernels& k, const Exec& e) {
            const std::vector<WeightRef> refs = w.refs();
            k.head_linear(e, {.x = x, .w = refs.data(), .transposed = transposed, .y = y});
          },
          head_flop(s.H, static_cast<double>(s.T), N * K)};
}

RowJob head_linear_dw(RowMaker& m) {
  const Sizes& s = m.s;
  const Tensor dy = m.input({s.T, s.H, s.V}), x = m.input({s.T, s.H, s.C}),
               dw = m.output({s.H, s.V, s.C});
  return {
      [=](const Kernels& k, const Exec& e) { k.head_linear_dw(e, {.dy = dy, .x = x, .dw = dw}); },
      head_flop(s.H, static_cast<double>(s.T), s.V * s.C)};
}

RowJob index_select(RowMaker& m) {
  const Indexer x(m, true);
  const Tensor sel = m.output({rows_of(m.s), m.s.K}, DType::kI32);
  return {[=](const Kernels& k, const Exec& e) {
            k.index_select(
                e, {.q = x.q, .w = x.w, .rows = x.seq.rows(), .keys = x.seq.pages(), .sel = sel});
          },
          head_flop(m.s.J, num_pairs(m.s), m.s.I + 1)};
}

RowJob index_scores(RowMaker& m) {
  const Indexer x(m, false);
  const Tensor scores = m.output({rows_of(m.s), m.s.L});
  return {
      [=](const Kernels& k, const Exec& e) {
        k.index_scores(
            e, {.q = x.q, .w = x.w, .rows = x.seq.rows(), .keys = x.seq.pages(), .scores = scores});
      },
      head_flop(m.s.J, num_pairs(m.s), m.s.I + 1)};
}

// Dense: warm-up of the indexer; sparse: its training beside the model.
template <bool sparse>
RowJob index_kl(RowMaker& m) {
  const Sizes& s = m.s;
  const int64_t T = rows_of(s);
  const Latent a(m, sparse);
  const Indexer x(m, false);
  const Tensor z = empty(*m.exec.arena, DType::kF32, {T, s.H, s.C}),
               lse = empty(*m.exec.arena, DType::kF32, {T, s.H}), kl = m.output({T}),
               dq = m.output({T, s.J, s.I}), dw = m.output({T, s.J}), dk = m.output({T, s.I});
  a.forward(cpu_ref(), m.exec, z, lse);
  return {[=](const Kernels& k, const Exec& e) {
            k.index_kl(e, {.q = x.q,
                           .w = x.w,
                           .k = x.seq.keys,
                           .rows = x.seq.rows(),
                           .sel = a.sel,
                           .q_lat = a.q_lat,
                           .q_pe = a.q_pe,
                           .kv = a.seq.keys,
                           .lse = lse,
                           .attn_scale = a.scale,
                           .kl = kl,
                           .mass = {},
                           .scale = 0.7,
                           .dq = dq,
                           .dw = dw,
                           .dk = dk});
          },
          head_flop(s.J, a.pairs, 3 * s.I + 2) + head_flop(s.H, a.pairs, s.C + s.R)};
}

constexpr RowSpec kSpecs[] = {
    {"head_linear", false, 1e-6, shape_head, head_linear<true>},
    {"head_linear_plain", false, 1e-6, shape_head_plain, head_linear<false>},
    {"head_linear_dw", false, 1e-6, shape_head, head_linear_dw},
    {"attention", false, 2e-5, shape_latent, attention<false>},
    {"attention_sel", false, 2e-5, shape_latent_sel, attention<true>},
    {"attention_bwd", false, 2e-5, shape_latent, attention_bwd<false>},
    {"attention_bwd_sel", false, 2e-5, shape_latent_sel, attention_bwd<true>},
    {"attention_mha", false, 2e-5, shape_mha, attention_mha},
    {"attention_mha_bwd", false, 2e-5, shape_mha, attention_mha_bwd},
    {"index_select", false, 0, shape_index, index_select},
    {"index_scores", false, 3e-6, shape_index, index_scores},
    {"index_kl", false, 5e-5, shape_index, index_kl<false>},
    {"index_kl_sel", false, 5e-5, shape_index, index_kl<true>},
};

}  // namespace

std::span<const RowSpec> attention_specs() { return kSpecs; }

}  // namespace fathom
