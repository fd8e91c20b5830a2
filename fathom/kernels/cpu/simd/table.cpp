// The table of the vector backend.
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom {

const Kernels& cpu_simd() {
  static constexpr Kernels kTable = {
      .name = "cpu/simd",
      .packed_bytes = simd::packed_bytes,
      .pack = simd::pack,
      .linear = simd::linear,
      .linear_dx = simd::linear_dx,
      .linear_dw = simd::linear_dw,
      .grouped_linear = simd::grouped_linear,
      .grouped_linear_dx = simd::grouped_linear_dx,
      .grouped_linear_dw = simd::grouped_linear_dw,
      .head_linear = simd::head_linear,
      .head_linear_dw = simd::head_linear_dw,
      .rms_norm = ref::rms_norm,
      .rms_norm_bwd = ref::rms_norm_bwd,
      .layer_norm = ref::layer_norm,
      .layer_norm_bwd = ref::layer_norm_bwd,
      .rope = ref::rope,
      .add = ref::add,
      .accumulate = ref::accumulate,
      .swiglu = ref::swiglu,
      .swiglu_bwd = ref::swiglu_bwd,
      .embed = ref::embed,
      .embed_bwd = ref::embed_bwd,
      .gate = ref::gate,
      .gate_bwd = ref::gate_bwd,
      .balance = ref::balance,
      .combine = ref::combine,
      .combine_bwd = ref::combine_bwd,
      .gather_bwd = ref::gather_bwd,
      .attention = simd::attention,
      .attention_bwd = simd::attention_bwd,
      .attention_mha = simd::attention_mha,
      .attention_mha_bwd = simd::attention_mha_bwd,
      .index_select = simd::index_select,
      .index_scores = simd::index_scores,
      .index_kl = simd::index_kl,
      .act_quant = ref::act_quant,
      .weight_quant = ref::weight_quant,
      .hadamard = ref::hadamard,
      .round_bf16 = ref::round_bf16,
      .cross_entropy = ref::cross_entropy,
      .adamw = ref::adamw,
      .sum_squares = ref::sum_squares,
  };
  return kTable;
}

}  // namespace fathom
