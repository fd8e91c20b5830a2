// The table of the vector backend.
#include "fathom/kernels/cpu/simd/simd.h"

namespace fathom {

const Kernels& cpu_simd() {
  static constexpr Kernels kTable = {
      .name = "cpu/simd",
      .linear = nullptr,
      .linear_dx = nullptr,
      .linear_dw = nullptr,
      .grouped_linear = nullptr,
      .grouped_linear_dx = nullptr,
      .grouped_linear_dw = nullptr,
      .head_linear = nullptr,
      .head_linear_dw = nullptr,
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
      .attention = nullptr,
      .attention_bwd = nullptr,
      .attention_mha = nullptr,
      .attention_mha_bwd = nullptr,
      .index_select = nullptr,
      .index_scores = nullptr,
      .index_kl = nullptr,
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
