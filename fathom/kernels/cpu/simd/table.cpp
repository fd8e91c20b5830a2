// The table of the vector backend.
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/kernels/cpu/simd/split_products.h"

namespace fathom {

const Kernels& cpu_simd() {
  static constexpr Kernels kTable = {
      .name = "cpu/simd",
      .has_split_products = simd::has_split_products,
      .packed_bytes = simd::packed_bytes,
      .pack = simd::pack,
      .linear = simd::linear,
      .linears = simd::linears,
      .linear_dx = simd::linear_dx,
      .linear_dw = simd::linear_dw,
      .grouped_linear = simd::grouped_linear,
      .grouped_linear_dx = simd::grouped_linear_dx,
      .grouped_linear_dw = simd::grouped_linear_dw,
      .head_linear = simd::head_linear,
      .linears_then_heads = simd::linears_then_heads,
      .heads_then_linear = simd::heads_then_linear,
      .head_linear_dw = simd::head_linear_dw,
      .rms_norm = simd::rms_norm,
      .add_norm = simd::add_norm,
      .rms_norm_bwd = simd::rms_norm_bwd,
      .layer_norm = simd::layer_norm,
      .layer_norm_bwd = simd::layer_norm_bwd,
      .rope = simd::rope,
      .add = simd::add,
      .accumulate = simd::accumulate,
      .swiglu = simd::swiglu,
      .swiglu_bwd = simd::swiglu_bwd,
      .embed = simd::embed,
      .embed_bwd = simd::embed_bwd,
      .gate = simd::gate,
      .gate_bwd = simd::gate_bwd,
      .balance = simd::balance,
      .combine = simd::combine,
      .expert_bwd = simd::expert_bwd,
      .gather_bwd = simd::gather_bwd,
      .attention = simd::attention,
      .attention_bwd = simd::attention_bwd,
      .attention_mha = simd::attention_mha,
      .attention_mha_bwd = simd::attention_mha_bwd,
      .index_select = simd::index_select,
      .index_code = simd::index_code,
      .latent_code = simd::latent_code,
      .index_scores = simd::index_scores,
      .index_kl = simd::index_kl,
      .act_quant = simd::act_quant,
      .weight_quant = ref::weight_quant,
      .hadamard = simd::hadamard,
      .round_bf16 = simd::round_bf16,
      .cross_entropy = simd::cross_entropy,
      .adamw = simd::adamw,
      .sum_squares = simd::sum_squares,
  };
  return kTable;
}

}  // namespace fathom
