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
      .rms_norm = nullptr,
      .rms_norm_bwd = nullptr,
      .layer_norm = nullptr,
      .layer_norm_bwd = nullptr,
      .rope = nullptr,
      .add = nullptr,
      .accumulate = nullptr,
      .swiglu = nullptr,
      .swiglu_bwd = nullptr,
      .embed = nullptr,
      .embed_bwd = nullptr,
      .gate = nullptr,
      .gate_bwd = nullptr,
      .balance = nullptr,
      .combine = nullptr,
      .combine_bwd = nullptr,
      .gather_bwd = nullptr,
      .attention = ref::attention,
      .attention_bwd = ref::attention_bwd,
      .attention_mha = ref::attention_mha,
      .attention_mha_bwd = ref::attention_mha_bwd,
      .index_select = ref::index_select,
      .index_scores = ref::index_scores,
      .index_kl = ref::index_kl,
      .act_quant = nullptr,
      .hadamard = nullptr,
      .round_bf16 = nullptr,
      .cross_entropy = nullptr,
      .adamw = nullptr,
      .sum_squares = nullptr,
  };
  return kTable;
}

}  // namespace fathom
