// The table of the reference backend.
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom {

const Kernels& cpu_ref() {
  static constexpr Kernels kTable = {
      .name = "cpu/ref",
      .packed_bytes = ref::packed_bytes,
      .pack = ref::pack,
      .linear = ref::linear,
      .linear_dx = ref::linear_dx,
      .linear_dw = ref::linear_dw,
      .grouped_linear = ref::grouped_linear,
      .grouped_linear_dx = ref::grouped_linear_dx,
      .grouped_linear_dw = ref::grouped_linear_dw,
      .head_linear = ref::head_linear,
      .head_linear_dw = ref::head_linear_dw,
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
