// Rows of the bench: norms, rotation, element-wise kernels, embedding, loss, optimiser, FP8.
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/kernels/bench_job.h"

namespace fathom {
namespace {

using Sizes = RowBenchSizes;

std::string shape_TD(const Sizes& s) { return fmt::format("T={} D={}", s.T, s.D); }
std::string shape_TF(const Sizes& s) { return fmt::format("T={} F={}", s.T, s.F); }
std::string shape_rope(const Sizes& s) { return fmt::format("T={} H={} R={}", s.T, s.H, s.R); }
std::string shape_table(const Sizes& s) { return fmt::format("T={} D={} W={}", s.T, s.D, s.W); }
std::string shape_loss(const Sizes& s) { return fmt::format("T={} W={}", s.loss_rows, s.W); }
std::string shape_flat(const Sizes& s) { return fmt::format("n={}", s.params); }
std::string shape_weight(const Sizes& s) { return fmt::format("N={} K={}", s.F, s.D); }

int64_t groups_of(int64_t n) { return (n + 127) / 128; }  // of FP8 scales

RowJob rms_norm(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), g = m.input({D}), y = m.output({T, D}), r = m.output({T});
  return {[=](const Kernels& k, const Exec& e) {
    k.rms_norm(e, {.x = x, .g = g, .y = y, .inv_rms = r, .eps = 1e-6});
  }};
}

RowJob add_norm(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor a = m.input({T, D}), b = m.input({T, D}), g = m.input({D}), sum = m.output({T, D}),
               y = m.output({T, D});
  return {[=](const Kernels& k, const Exec& e) {
    k.add_norm(e, {.a = a, .b = b, .g = g, .sum = sum, .y = y, .eps = 1e-6});
  }};
}

RowJob rms_norm_bwd(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), g = m.input({D}), r = m.positive({T}), dy = m.input({T, D}),
               dx = m.output({T, D}), dg = m.output({D});
  return {[=](const Kernels& k, const Exec& e) {
    k.rms_norm_bwd(e, {.x = x, .g = g, .inv_rms = r, .dy = dy, .dx = dx, .dg = dg});
  }};
}

RowJob layer_norm(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), g = m.input({D}), b = m.input({D}), y = m.output({T, D}),
               mean = m.output({T}), inv = m.output({T});
  return {[=](const Kernels& k, const Exec& e) {
    k.layer_norm(e, {.x = x, .g = g, .b = b, .y = y, .mean = mean, .inv_std = inv, .eps = 1e-6});
  }};
}

RowJob layer_norm_bwd(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), g = m.input({D}), mean = m.input({T}), inv = m.positive({T}),
               dy = m.input({T, D}), dx = m.output({T, D}), dg = m.output({D}), db = m.output({D});
  return {[=](const Kernels& k, const Exec& e) {
    k.layer_norm_bwd(
        e, {.x = x, .g = g, .mean = mean, .inv_std = inv, .dy = dy, .dx = dx, .dg = dg, .db = db});
  }};
}

RowJob rope(RowMaker& m) {
  const int64_t T = m.s.T, H = m.s.H, R = m.s.R;
  const Tensor x = m.input({T, H, R}), y = m.output({T, H, R});
  std::vector<int32_t> pos;
  std::vector<double> inv_freq;
  for (int64_t t = 0; t < T; ++t) pos.push_back(static_cast<int32_t>(t % m.s.L));
  for (int64_t i = 0; i < R / 2; ++i)
    inv_freq.push_back(std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(R)));
  m.bytes += 4 * static_cast<double>(T);
  return {[=](const Kernels& k, const Exec& e) {
    k.rope(e, {.x = x, .pos = pos.data(), .inv_freq = inv_freq.data(), .y = y});
  }};
}

RowJob add(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor a = m.input({T, D}), b = m.input({T, D}), y = m.output({T, D});
  return {[=](const Kernels& k, const Exec& e) { k.add(e, {.a = a, .b = b, .y = y}); }};
}

RowJob accumulate(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), y = m.in_out({T, D});
  return {
      [=](const Kernels& k, const Exec& e) { k.accumulate(e, {.x = x, .y = y, .scale = 0.3}); }};
}

RowJob swiglu(RowMaker& m) {
  const int64_t T = m.s.T, F = m.s.F;
  const Tensor gate = m.input({T, F}, 4), up = m.input({T, F}), y = m.output({T, F});
  return {[=](const Kernels& k, const Exec& e) { k.swiglu(e, {.gate = gate, .up = up, .y = y}); }};
}

RowJob swiglu_bwd(RowMaker& m) {
  const int64_t T = m.s.T, F = m.s.F;
  const Tensor gate = m.input({T, F}, 4), up = m.input({T, F}), dy = m.input({T, F}),
               dgate = m.output({T, F}), dup = m.output({T, F});
  return {[=](const Kernels& k, const Exec& e) {
    k.swiglu_bwd(e, {.gate = gate, .up = up, .dy = dy, .dgate = dgate, .dup = dup});
  }};
}

// Bytes of the T rows that are touched; the whole table does not move.
double row_bytes(const Sizes& s) { return 4 * static_cast<double>(s.T * s.D); }

RowJob embed(RowMaker& m) {
  const Tensor table = m.input({m.s.W, m.s.D}), y = m.output({m.s.T, m.s.D});
  const std::vector<int32_t> ids = m.indices(m.s.T, m.s.W);
  m.bytes = 2 * row_bytes(m.s) + 4 * static_cast<double>(m.s.T);
  return {[=](const Kernels& k, const Exec& e) {
    k.embed(e, {.ids = ids.data(), .table = table, .y = y});
  }};
}

RowJob embed_bwd(RowMaker& m) {
  const Tensor dy = m.input({m.s.T, m.s.D}), dtable = m.in_out({m.s.W, m.s.D});
  const std::vector<int32_t> ids = m.indices(m.s.T, m.s.W);
  m.bytes = 3 * row_bytes(m.s) + 4 * static_cast<double>(m.s.T);
  return {[=](const Kernels& k, const Exec& e) {
    k.embed_bwd(e, {.ids = ids.data(), .dy = dy, .dtable = dtable});
  }};
}

RowJob cross_entropy(RowMaker& m) {
  const int64_t T = m.s.loss_rows, W = m.s.W;
  const Tensor logits = m.input({T, W}, 9), nll = m.output({T}), lse = m.output({T}),
               dlogits = m.output({T, W});
  const std::vector<int32_t> target = m.indices(T, W);
  const std::vector<double> weight(static_cast<size_t>(T), 0.7);
  return {[=](const Kernels& k, const Exec& e) {
    k.cross_entropy(e, {.logits = logits,
                        .target = target.data(),
                        .nll = nll,
                        .lse = lse,
                        .weight = weight.data(),
                        .dlogits = dlogits});
  }};
}

RowJob adamw(RowMaker& m) {
  const int64_t n = m.s.params;
  const Tensor w = m.in_out({n}), mean = m.in_out({n}, 0.1), v = m.in_out({n}, 0.1),
               dw = m.input({n});
  for (int64_t i = 0; i < n; ++i) {  // second moments are not negative
    float& start = m.outputs.back().start.as<float>()[i];
    v.as<float>()[i] = start = std::abs(start);
  }
  return {[=](const Kernels& k, const Exec& e) {
    k.adamw(e, {.w = w,
                .m = mean,
                .v = v,
                .dw = dw,
                .lr = 0.01,
                .beta1 = 0.9,
                .beta2 = 0.95,
                .eps = 1e-8,
                .weight_decay = 0.1,
                .step = 3,
                .grad_scale = 0.5});
  }};
}

RowJob sum_squares(RowMaker& m) {
  const Tensor x = m.input({m.s.params}), sum = m.output({1}, DType::kF64);
  return {[=](const Kernels& k, const Exec& e) {
    k.sum_squares(e, {.x = x, .sum = sum.as<double>()});
  }};
}

RowJob act_quant(RowMaker& m) {
  const int64_t T = m.s.T, D = m.s.D;
  const Tensor x = m.input({T, D}), y = m.output({T, D}), codes = m.output({T, D}, DType::kE4M3),
               scales = m.output({T, groups_of(D)});
  return {[=](const Kernels& k, const Exec& e) {
    k.act_quant(e, {.x = x, .y = y, .codes = codes, .scales = scales});
  }};
}

RowJob weight_quant(RowMaker& m) {
  const int64_t N = m.s.F, K = m.s.D;
  const Tensor w = m.input({N, K}), codes = m.output({N, K}, DType::kE4M3),
               scales = m.output({groups_of(N), groups_of(K)});
  return {[=](const Kernels& k, const Exec& e) {
    k.weight_quant(e, {.w = w, .codes = codes, .scales = scales});
  }};
}

RowJob hadamard(RowMaker& m) {
  const Tensor x = m.input({m.s.T, m.s.D}), y = m.output({m.s.T, m.s.D});
  return {[=](const Kernels& k, const Exec& e) { k.hadamard(e, {.x = x, .y = y}); }};
}

RowJob round_bf16(RowMaker& m) {
  const Tensor x = m.input({m.s.T, m.s.D}), y = m.output({m.s.T, m.s.D});
  return {[=](const Kernels& k, const Exec& e) { k.round_bf16(e, {.x = x, .y = y}); }};
}

constexpr RowSpec kSpecs[] = {
    {"rms_norm", true, 1e-6, shape_TD, rms_norm},
    {"add_norm", true, 1e-6, shape_TD, add_norm},
    {"rms_norm_bwd", true, 1e-6, shape_TD, rms_norm_bwd},
    {"layer_norm", true, 1e-6, shape_TD, layer_norm},
    {"layer_norm_bwd", true, 1e-6, shape_TD, layer_norm_bwd},
    {"rope", true, 1e-6, shape_rope, rope},
    {"add", true, 1e-6, shape_TD, add},
    {"accumulate", true, 1e-6, shape_TD, accumulate},
    {"swiglu", true, 1e-6, shape_TF, swiglu},
    {"swiglu_bwd", true, 1e-6, shape_TF, swiglu_bwd},
    {"embed", true, 0, shape_table, embed},
    {"embed_bwd", true, 0, shape_table, embed_bwd},
    {"cross_entropy", true, 1e-6, shape_loss, cross_entropy},
    {"adamw", true, 1e-6, shape_flat, adamw},
    {"sum_squares", true, 1e-7, shape_flat, sum_squares},
    {"act_quant", true, 0, shape_TD, act_quant},
    {"weight_quant", true, 0, shape_weight, weight_quant},
    {"hadamard", true, 5e-7, shape_TD, hadamard},
    {"round_bf16", true, 0, shape_TD, round_bf16},
};

}  // namespace

std::span<const RowSpec> row_wise_specs() { return kSpecs; }

}  // namespace fathom
