// The reference kernels: plain loops over f32 or f64 tensors with f64 accumulation. See kernels.h
// for the contracts.
#pragma once

#include "fathom/kernels/kernels.h"

namespace fathom::ref {

int64_t packed_bytes(const PackWeight& a);
void pack(const Exec& exec, const PackWeight& a);
void linear(const Exec& exec, const Linear& a);
void linears(const Exec& exec, const Linear* list, int64_t count);
void linear_dx(const Exec& exec, const LinearDx& a);
void linear_dw(const Exec& exec, const LinearDw& a);
void grouped_linear(const Exec& exec, const GroupedLinear& a);
void grouped_linear_dx(const Exec& exec, const GroupedLinearDx& a);
void grouped_linear_dw(const Exec& exec, const GroupedLinearDw& a);
void head_linear(const Exec& exec, const HeadLinear& a);
void linears_then_heads(const Exec& exec, const Linear* list, int64_t count,
                        const HeadLinear& then);
void heads_then_linear(const Exec& exec, const HeadLinear& a, const Linear& then);
void head_linear_dw(const Exec& exec, const HeadLinearDw& a);
void rms_norm(const Exec& exec, const RmsNorm& a);
void add_norm(const Exec& exec, const AddNorm& a);
void rms_norm_bwd(const Exec& exec, const RmsNormBwd& a);
void layer_norm(const Exec& exec, const LayerNorm& a);
void layer_norm_bwd(const Exec& exec, const LayerNormBwd& a);
void rope(const Exec& exec, const Rope& a);
void add(const Exec& exec, const Add& a);
void accumulate(const Exec& exec, const Accumulate& a);
void swiglu(const Exec& exec, const Swiglu& a);
void swiglu_bwd(const Exec& exec, const SwigluBwd& a);
void embed(const Exec& exec, const Embed& a);
void embed_bwd(const Exec& exec, const EmbedBwd& a);
void gate(const Exec& exec, const Gate& a);
void gate_bwd(const Exec& exec, const GateBwd& a);
void balance(const Exec& exec, const Balance& a);
void combine(const Exec& exec, const Combine& a);
void expert_bwd(const Exec& exec, const ExpertBwd& a);
void gather_bwd(const Exec& exec, const GatherBwd& a);
void attention(const Exec& exec, const Attention& a);
void attention_bwd(const Exec& exec, const AttentionBwd& a);
void attention_mha(const Exec& exec, const AttentionMha& a);
void attention_mha_bwd(const Exec& exec, const AttentionMhaBwd& a);
void index_select(const Exec& exec, const IndexSelect& a);
void index_code(const Exec& exec, const IndexCode& a);
void latent_code(const Exec& exec, const LatentCode& a);
void index_scores(const Exec& exec, const IndexScores& a);
void index_kl(const Exec& exec, const IndexKl& a);
void act_quant(const Exec& exec, const ActQuant& a);
void weight_quant(const Exec& exec, const WeightQuant& a);
void hadamard(const Exec& exec, const Hadamard& a);
void round_bf16(const Exec& exec, const RoundBf16& a);
void cross_entropy(const Exec& exec, const CrossEntropy& a);
void adamw(const Exec& exec, const AdamW& a);
void sum_squares(const Exec& exec, const SumSquares& a);

}  // namespace fathom::ref
