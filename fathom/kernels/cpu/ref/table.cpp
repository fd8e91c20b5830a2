// The table of the reference backend.
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom {

const Kernels& cpu_ref() {
  static constexpr Kernels kTable = {
      .name = "cpu/ref",
      .has_split_products = [] { return false; },
      .packed_bytes = ref::packed_bytes,
      .pack = ref::pack,
      .linear = ref::linear,
      .linears = ref::linears,
      .linear_dx = ref::linear_dx,
      .linear_dw = ref::linear_dw,
      .grouped_linear = ref::grouped_linear,
      .grouped_linear_dx = ref::grouped_linear_dx,
      .grouped_linear_dw = ref::grouped_linear_dw,
      .head_linear = ref::head_linear,
      .linears_then_heads = ref::linears_then_heads,
      .heads_then_linear = ref::heads_then_linear,
      .head_linear_dw = ref::head_linear_dw,
      .rms_norm = ref::rms_norm,
      .add_norm = ref::add_norm,
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
      .expert_bwd = ref::expert_bwd,
      .gather_bwd = ref::gather_bwd,
      .attention = ref::attention,
      .attention_bwd = ref::attention_bwd,
      .attention_mha = ref::attention_mha,
      .attention_mha_bwd = ref::attention_mha_bwd,
      .index_select = ref::index_select,
      .index_code = ref::index_code,
      .latent_code = ref::latent_code,
      .index_scores = ref::index_scores,
      .index_kl = ref::index_kl,
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
