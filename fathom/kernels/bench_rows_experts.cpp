// Rows of the bench: router, balance loss and the sums over experts.
#include "fathom/base/error.h"
#include "fathom/kernels/bench_job.h"

namespace fathom {
namespace {

using Sizes = RowBenchSizes;

std::string shape_TE(const Sizes& s) { return fmt::format("T={} E={} A={}", s.T, s.E, s.A); }
std::string shape_TA(const Sizes& s) { return fmt::format("T={} A={} D={}", s.T, s.A, s.D); }

RowJob gate(RowMaker& m) {
  const int64_t T = m.s.T, E = m.s.E, A = m.s.A;
  // Coarse, so that no two selection scores differ by rounding alone.
  const Tensor logits = m.input({T, E}, 4, true), bias = m.input({E}, 0.25, true),
               scores = m.output({T, E}), experts = m.output({T, A}, DType::kI32),
               weights = m.output({T, A});
  return {[=](const Kernels& k, const Exec& e) {
    k.gate(e, {.logits = logits,
               .bias = bias,
               .routed_scaling_factor = 2.5,
               .scores = scores,
               .experts = experts,
               .weights = weights});
  }};
}

RowJob gate_bwd(RowMaker& m) {
  const int64_t T = m.s.T, E = m.s.E, A = m.s.A;
  const Tensor scores = m.positive({T, E}), weights = m.input({T, A}), dweights = m.input({T, A}),
               dscores = m.input({T, E}), dlogits = m.output({T, E});
  const std::vector<int32_t> chosen = m.indices(T * A, E, A);
  return {[=](const Kernels& k, const Exec& e) {
    k.gate_bwd(e, {.scores = scores,
                   .experts = make_view(chosen.data(), DType::kI32, {T, A}),
                   .weights = weights,
                   .dweights = dweights,
                   .dscores = dscores,
                   .scoring = ScoringFunc::kSigmoid,
                   .norm_topk_prob = true,
                   .routed_scaling_factor = 2.5,
                   .dlogits = dlogits});
  }};
}

RowJob balance(RowMaker& m) {
  const int64_t T = m.s.T, E = m.s.E, A = m.s.A, num_seq = m.s.num_seq;
  const Tensor scores = m.positive({T, E}), dscores = m.output({T, E}),
               loss = m.output({1}, DType::kF64);
  std::vector<int32_t> first_row;
  for (int64_t b = 0; b <= num_seq; ++b) first_row.push_back(static_cast<int32_t>(T * b / num_seq));
  return {[=](const Kernels& k, const Exec& e) {
    k.balance(e, {.scores = scores,
                  .num_experts_per_tok = A,
                  .num_seq = num_seq,
                  .first_row = first_row.data(),
                  .weight = 0.5,
                  .loss = loss.as<double>(),
                  .dscores = dscores});
  }};
}

// Rows of x in the order of the experts: each of the P = T A rows belongs to one (token, choice).
std::vector<int32_t> slots(RowMaker& m) {
  const int64_t P = m.s.T * m.s.A;
  std::vector<int32_t> slot(static_cast<size_t>(P));
  for (int64_t i = 0; i < P; ++i)
    slot[static_cast<size_t>(i)] = static_cast<int32_t>(i % m.s.A * m.s.T + i / m.s.A);
  m.bytes += 4 * static_cast<double>(P);
  return slot;
}

RowJob combine(RowMaker& m) {
  const int64_t T = m.s.T, A = m.s.A, D = m.s.D;
  const Tensor x = m.input({T * A, D}), weights = m.input({T, A}), y = m.output({T, D});
  return {[=, slot = slots(m)](const Kernels& k, const Exec& e) {
    k.combine(e, {.x = x, .slot = slot.data(), .weights = weights, .y = y});
  }};
}

RowJob expert_bwd(RowMaker& m) {
  const int64_t T = m.s.T, A = m.s.A, P = T * A, F = m.s.D;
  const Tensor gate = m.input({P, F}), up = m.input({P, F}), dy = m.input({P, F}),
               weights = m.input({T, A}), dgate = m.output({P, F}), dup = m.output({P, F}),
               weighted_h = m.output({P, F}), dweights = m.output({T, A});
  return {[=, pair = slots(m)](const Kernels& k, const Exec& e) {
    k.expert_bwd(e, {.gate = gate,
                     .up = up,
                     .dy = dy,
                     .weights = weights,
                     .pair = pair.data(),
                     .dgate = dgate,
                     .dup = dup,
                     .weighted_h = weighted_h,
                     .dweights = dweights});
  }};
}

RowJob gather_bwd(RowMaker& m) {
  const int64_t T = m.s.T, A = m.s.A, D = m.s.D;
  const Tensor dxp = m.input({T * A, D}), dx = m.output({T, D});
  return {[=, slot = slots(m)](const Kernels& k, const Exec& e) {
    k.gather_bwd(e, {.dxp = dxp, .slot = slot.data(), .num_experts_per_tok = A, .dx = dx});
  }};
}

// The gradient of the balance loss is a multiple of f - mean; both are near 1 when the load is
// even, and the difference keeps fewer digits.
constexpr double kBalanceTolerance = 3e-6;

constexpr RowSpec kSpecs[] = {
    {"gate", true, 1e-6, shape_TE, gate},
    {"gate_bwd", true, 1e-6, shape_TE, gate_bwd},
    {"balance", true, kBalanceTolerance, shape_TE, balance},
    {"combine", true, 1e-6, shape_TA, combine},
    {"expert_bwd", true, 1e-6, shape_TA, expert_bwd},
    {"gather_bwd", true, 1e-6, shape_TA, gather_bwd},
};

}  // namespace

std::span<const RowSpec> expert_specs() { return kSpecs; }

}  // namespace fathom
