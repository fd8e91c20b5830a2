// The raw compute of fathom: one table of function pointers per backend. A parameter struct is the
// contract of its kernel; shapes are in the comments with the letters of docs/symbols.md. Every
// forward kernel is row-exact: row t of an output depends on the inputs of row t alone, in an order
// of summation fixed by the sizes. `cpu_ref` is the specification (plain loops, f32 or f64 tensors,
// f64 accumulation); every other table is compared with it.
//
// Conventions: `View`s are row-major with a contiguous last dimension; outer strides are honoured
// where a comment says "strided", else the view is contiguous. Gradients: `add` false writes `=`,
// true `+=`. Kernels allocate scratch from exec.arena only. Sums over tokens in adjoints run in
// ascending row order, whatever the number of threads.
#pragma once

#include <cstdint>

#include "fathom/kernels/attention.h"
#include "fathom/kernels/grad_products.h"
#include "fathom/tensor/view.h"

namespace fathom {

class Arena;
class ThreadPool;

struct Exec {
  ThreadPool* pool;
  Arena* arena;
  GradProducts gradient_products = GradProducts::kF32;
};

// ---- linear maps --------------------------------------------------------------------------------

struct PackedB;  // kernels/gemm.h

// A weight W [N,K] in every form a kernel may want; absent forms are null. `raw` may be f32, f64,
// bf16, f16 or e4m3 (then `scale` [ceil(N/128), ceil(K/128)] f32 multiplies 128 x 128 blocks), or
// quantised as quantize_rows of gemm.h does it: i8 (Q8), or u8 [N, K/2] (Q4, K even), with `scale`
// bf16 [N, ceil(K/64)]. Quantised weights have no transposed form and no gradients.
struct WeightRef {
  View raw;  // [N,K]
  View scale;
  const PackedB* packed = nullptr;    // for y = x W^T
  const PackedB* packed_t = nullptr;  // for dx = dy W
};
constexpr bool is_quantized(DType raw) { return raw == DType::kI8 || raw == DType::kU8; }
inline int64_t weight_columns(const View& raw) {  // K
  return raw.dtype == DType::kU8 ? 2 * raw.dim[1] : raw.dim[1];
}

// Builds the packed form of `raw` (with `scale`) in dst, 64-byte aligned and packed_bytes() long. A
// backend that works on raw weights answers 0 bytes. raw without data: dst holds it already.
struct PackWeight {
  View raw, scale;
  bool transposed = false;                     // for dx = dy W
  GradProducts products = GradProducts::kF32;  // of the transposed form: those of dx
  void* dst = nullptr;
  PackedB* out = nullptr;  // = ; points into dst
};
// y = x W^T. Each output is one sum over k ascending. M >= 0.
struct Linear {
  View x;                         // [M,K] strided rows; with `rows`, [*,K]
  const int32_t* rows = nullptr;  // optional [M]: row of x that output row m reads
  WeightRef w;                    // [N,K]
  View y;                         // [M,N] strided rows
  bool add = false;
};
// Linear maps that do not depend on each other may share a parallel region: `linears` has the bits
// of one `linear` call for each of its list.
// dx (+)= dy W
struct LinearDx {
  View dy;  // [M,N] strided rows
  WeightRef w;
  View dx;  // [M,K] strided rows
  bool add = false;
};
// dw (+)= dy^T x, m ascending
struct LinearDw {
  View dy;  // [M,N] strided rows
  View x;   // [M,K] strided rows; with `rows`, [*,K]
  const int32_t* rows = nullptr;
  View dw;  // [N,K]
  bool add = false;
};
// The same three for E weights of equal shape; rows offset[e] .. offset[e+1]-1 of the M side belong
// to weight e.
struct GroupedLinear {
  View x;  // [P,K], or [*,K] with `rows` [P]
  const int32_t* rows = nullptr;
  int64_t num_groups = 0;
  const int32_t* offset = nullptr;  // [E+1] ascending
  const WeightRef* w = nullptr;     // [E]
  View y;                           // [P,N]
};
struct GroupedLinearDx {
  View dy;  // [P,N], or [*,N] with `rows` [P]
  const int32_t* rows = nullptr;
  int64_t num_groups = 0;
  const int32_t* offset = nullptr;
  const WeightRef* w = nullptr;
  View dx;  // [P,K]
  bool add = false;
};
struct GroupedLinearDw {
  View dy;  // [P,N], or [*,N] with `dy_rows` [P]
  const int32_t* dy_rows = nullptr;
  View x;  // [P,K], or [*,K] with `rows` [P]
  const int32_t* rows = nullptr;
  int64_t num_groups = 0;
  const int32_t* offset = nullptr;
  const View* dw = nullptr;   // [E] of [N,K]
  const bool* add = nullptr;  // [E]; a group without rows and add false is set to zero
};
// Per head h: y[h] = x[h] w[h]^T with w[h] [N,K] (transposed true) or y[h] = x[h] w[h] with w[h]
// [K,N] (false): the absorbed products of MLA with a head's rows of kv_b_proj. Uses packed or
// packed_t accordingly.
struct HeadLinear {
  View x;                        // [T,H,K] strided
  const WeightRef* w = nullptr;  // [H]
  bool transposed = true;
  View y;  // [T,H,N] strided
  bool add = false;
};
// dw[h] (+)= dy[h]^T x[h] ([H,N,K], transposed true) or x[h]^T dy[h] ([H,K,N], false), t ascending
struct HeadLinearDw {
  View dy;  // [T,H,N] strided
  View x;   // [T,H,K] strided
  bool transposed = true;
  View dw;  // strided heads
  bool add = false;
};

// ---- norms, rotation, element-wise --------------------------------------------------------------

// y = g x / rms(x); inv_rms is saved for the adjoint when its data is not null
struct RmsNorm {
  View x;        // [T,D] strided rows
  View g;        // [D]
  View y;        // [T,D] strided rows; may alias x
  View inv_rms;  // [T] or null
  double eps;
};
// sum = a + b; y = g sum / rms(sum): the bits of Add and RmsNorm
struct AddNorm {
  View a, b;  // [T,D] strided rows
  View g;     // [D]
  View sum;   // [T,D] strided rows; may alias a or b
  View y;     // [T,D] strided rows
  double eps;
};
// dx (+)= r g dy - x r^3 mean(g dy x);  dg (+)= sum_T dy x r
struct RmsNormBwd {
  View x, g, inv_rms, dy, dx, dg;  // dx or dg may be null
  bool add_dx = false, add_dg = false;
};
// y = g (x - mean) / sqrt(var + eps) + b
struct LayerNorm {
  View x;              // [T,D] strided rows
  View g, b;           // [D]
  View y;              // [T,D] strided rows; may alias x
  View mean, inv_std;  // [T] or null
  double eps;
};
struct LayerNormBwd {
  View x, g, mean, inv_std, dy, dx, dg, db;  // dx, or dg with db, may be null
  bool add_dx = false, add_dg = false, add_db = false;
};

enum class RopePairs : uint8_t { kInterleaved, kHalves };  // (2i, 2i+1) or (i, i + R/2)

// Rotates the R elements of each head by pos * inv_freq, times `amplitude`. `inverse` rotates back
// (the adjoint).
struct Rope {
  View x;                            // [T,H,R] strided
  const int32_t* pos = nullptr;      // [T]
  const double* inv_freq = nullptr;  // [R/2]; angles are formed in f64 and rounded once
  double amplitude = 1;
  RopePairs pairs = RopePairs::kInterleaved;
  bool inverse = false;
  View y;            // [T,H,R] strided; may alias x
  bool add = false;  // y += rotated
};

struct Add {     // y = a + b
  View a, b, y;  // [T,D] strided rows
};
struct Accumulate {  // y (+)= scale * x
  View x, y;         // [T,D] strided rows
  double scale = 1;
  bool add = true;
};
struct Swiglu {      // y = silu(gate) * up; y may alias gate
  View gate, up, y;  // [T,F] strided rows
};
struct SwigluBwd {
  View gate, up, dy, dgate, dup;  // [T,F] strided rows
  bool add = false;
};

struct Embed {                   // y[t] = table[ids[t]]
  const int32_t* ids = nullptr;  // [T]
  View table;                    // [W,D] f32, f64, bf16 or f16
  View y;                        // [T,D]
};
// dtable[ids[t]] += dy[t], t ascending; dtable was set before
struct EmbedBwd {
  const int32_t* ids = nullptr;
  View dy, dtable;
};

// ---- mixture of experts -------------------------------------------------------------------------

enum class ScoringFunc : uint8_t { kSigmoid, kSoftmax };
enum class TopkMethod : uint8_t { kNoauxTc, kGreedy, kGroupLimitedGreedy };

// Scores, selection and gate weights (model spec 3.6). Ties: lowest index. Groups that are not kept
// count as -inf.
struct Gate {
  View logits;  // [T,E]
  View bias;    // [E] or null: selection only
  ScoringFunc scoring = ScoringFunc::kSigmoid;
  TopkMethod method = TopkMethod::kNoauxTc;
  int64_t n_group = 1, topk_group = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  // `experts` is an input (keep routing); only scores and weights are computed
  bool forced = false;
  View scores;   // [T,E] sigmoid or softmax of logits
  View experts;  // [T,A] i32, descending selection score
  View weights;  // [T,A]
};
struct GateBwd {
  View scores, experts, weights;
  View dweights;  // [T,A]
  // [T,E] or null: gradient that arrives at the scores from elsewhere (balance loss)
  View dscores;
  ScoringFunc scoring;
  bool norm_topk_prob;
  double routed_scaling_factor;
  View dlogits;  // [T,E]
  bool add = false;
};
// Sequence-wise balance loss of V3 (eq. 17-20) without its coefficient: mean over sequences of
// sum_e f_e P_e. f counts the A largest unbiased scores (no group limit), P is the mean of s_e /
// sum_j s_j. f carries no gradient.
struct Balance {
  View scores;  // [T,E]
  int64_t num_experts_per_tok;
  int64_t num_seq;
  const int32_t* first_row;  // [num_seq+1]
  double weight;             // of the loss in the total
  double* loss;              // = mean over sequences, unweighted
  View dscores;              // [T,E] (+)= weight * gradient, or null
  bool add = false;
};
// y[t] = sum_a weights[t,a] x[slot[t,a]], a ascending
struct Combine {
  View x;               // [P,D]
  const int32_t* slot;  // [T*A] row of x
  View weights;         // [T,A]
  View y;               // [T,D]
  bool add = false;     // y += the rounded sum
};
// The adjoint of Combine and of the experts' SwiGLU in one. A combined row is the sum of weight *
// (W_down h) with h = silu(gate) * up, so dy, the gradient of a token times W_down, is the same for
// all of its weights: dh = weight * dy, dweight = dy . h, and dW_down sums dy^T (weight * h).
struct ExpertBwd {
  View gate, up;        // [P,F] strided rows
  View dy;              // [P,F]
  View weights;         // [T,A]
  const int32_t* pair;  // [P]: t * A + a of a slot
  View dgate, dup;      // [P,F] strided rows =, or null
  View weighted_h;      // [P,F] =, or null
  View dweights;        // [T,A] (+)=, or null
  bool add_dweights = false;
};
// dx[t] (+)= sum_a dxp[slot[t,a]]: the adjoint of reading x by rows
struct GatherBwd {
  View dxp;             // [P,D]
  const int32_t* slot;  // [T*A]
  int64_t num_experts_per_tok;
  View dx;  // [T,D]
  bool add = false;
};

// ---- FP8 ----------------------------------------------------------------------------------------

enum class ScaleFormat : uint8_t { kF32, kUe8m0 };

// Per 128 elements of the last dimension: amax/448 (at least 1e-4/448), optionally rounded up to a
// power of two; y is the dequantised value (model spec 4.2). codes [.., D] u8-sized e4m3 and scales
// [.., ceil(D/128)] f32 when not null.
struct ActQuant {
  View x;  // [T,D] strided rows
  ScaleFormat format = ScaleFormat::kF32;
  View y;  // [T,D] strided rows, may alias x; or null
  View codes, scales;
};
// The same per 128 x 128 block of a weight [N,K]; scales [ceil(N/128), ceil(K/128)].
struct WeightQuant {
  View w;
  ScaleFormat format = ScaleFormat::kF32;
  View codes;   // [N,K] e4m3
  View scales;  // f32
};
struct Hadamard {  // y = H x / sqrt(D), D a power of two, Sylvester order
  View x, y;       // [T,D] strided rows, may alias
};
struct RoundBf16 {
  View x, y;  // [T,D] strided rows, may alias
};

// ---- losses and the optimiser -------------------------------------------------------------------

// nll[t] = log sum exp(logits[t]) - logits[t, target[t]]; target < 0: nll = 0, no gradient. W >= 1.
struct CrossEntropy {
  View logits;                      // [T,W]
  const int32_t* target = nullptr;  // [T]
  View nll;                         // [T]
  View lse;                         // [T] or null
  // [T]; with dlogits: dlogits = weight[t] * gradient of nll[t]
  const double* weight = nullptr;
  View dlogits;  // [T,W], may alias logits; or null
};
struct AdamW {
  View w, m, v, dw;  // [n] flat
  double lr, beta1, beta2, eps, weight_decay;
  int64_t step;       // 1-based, for the bias corrections
  double grad_scale;  // clipping factor
};
struct SumSquares {
  View x;       // [n] flat
  double* sum;  // =, fixed chunks of 4096 added in order, f64
};

struct Kernels {
  const char* name;
  bool (*has_split_products)();  // GradProducts::kSplit may be asked for
  int64_t (*packed_bytes)(const PackWeight&);
  void (*pack)(const Exec&, const PackWeight&);
  void (*linear)(const Exec&, const Linear&);
  void (*linears)(const Exec&, const Linear* list, int64_t count);
  void (*linear_dx)(const Exec&, const LinearDx&);
  void (*linear_dw)(const Exec&, const LinearDw&);
  void (*grouped_linear)(const Exec&, const GroupedLinear&);
  void (*grouped_linear_dx)(const Exec&, const GroupedLinearDx&);
  void (*grouped_linear_dw)(const Exec&, const GroupedLinearDw&);
  void (*head_linear)(const Exec&, const HeadLinear&);
  // The one after the other, with the same bits; `then` may read what was written before.
  void (*linears_then_heads)(const Exec&, const Linear* list, int64_t count,
                             const HeadLinear& then);
  void (*heads_then_linear)(const Exec&, const HeadLinear&, const Linear& then);
  void (*head_linear_dw)(const Exec&, const HeadLinearDw&);
  void (*rms_norm)(const Exec&, const RmsNorm&);
  void (*add_norm)(const Exec&, const AddNorm&);
  void (*rms_norm_bwd)(const Exec&, const RmsNormBwd&);
  void (*layer_norm)(const Exec&, const LayerNorm&);
  void (*layer_norm_bwd)(const Exec&, const LayerNormBwd&);
  void (*rope)(const Exec&, const Rope&);
  void (*add)(const Exec&, const Add&);
  void (*accumulate)(const Exec&, const Accumulate&);
  void (*swiglu)(const Exec&, const Swiglu&);
  void (*swiglu_bwd)(const Exec&, const SwigluBwd&);
  void (*embed)(const Exec&, const Embed&);
  void (*embed_bwd)(const Exec&, const EmbedBwd&);
  void (*gate)(const Exec&, const Gate&);
  void (*gate_bwd)(const Exec&, const GateBwd&);
  void (*balance)(const Exec&, const Balance&);
  void (*combine)(const Exec&, const Combine&);
  void (*expert_bwd)(const Exec&, const ExpertBwd&);
  void (*gather_bwd)(const Exec&, const GatherBwd&);
  void (*attention)(const Exec&, const Attention&);
  void (*attention_bwd)(const Exec&, const AttentionBwd&);
  void (*attention_mha)(const Exec&, const AttentionMha&);
  void (*attention_mha_bwd)(const Exec&, const AttentionMhaBwd&);
  void (*index_select)(const Exec&, const IndexSelect&);
  void (*index_code)(const Exec&, const IndexCode&);
  void (*latent_code)(const Exec&, const LatentCode&);
  void (*index_scores)(const Exec&, const IndexScores&);
  void (*index_kl)(const Exec&, const IndexKl&);
  void (*act_quant)(const Exec&, const ActQuant&);
  void (*weight_quant)(const Exec&, const WeightQuant&);
  void (*hadamard)(const Exec&, const Hadamard&);
  void (*round_bf16)(const Exec&, const RoundBf16&);
  void (*cross_entropy)(const Exec&, const CrossEntropy&);
  void (*adamw)(const Exec&, const AdamW&);
  void (*sum_squares)(const Exec&, const SumSquares&);
};

const Kernels& cpu_ref();   // f32 and f64 tensors
const Kernels& cpu_simd();  // f32 tensors; f64 calls go to cpu_ref

}  // namespace fathom
