// Norms, rotation, element-wise ops and the embedding, each with its adjoint. Statistics and
// products in the real type of ctx.
#pragma once

#include <memory>
#include <vector>

#include "fathom/ops/ctx.h"

namespace fathom {

// y = g x / sqrt(mean_D(x^2) + eps);  dx += r g dy - x r^3 mean_D(g dy x), dg += sum_T dy x r, r =
// 1/rms.  x_TD strided rows.
Value rms_norm(Ctx& ctx, const Value& x_TD, const Value& g_D, double eps);
// y = g (x - mean) / sqrt(var + eps) + b.  x_TD strided rows.
Value layer_norm(Ctx& ctx, const Value& x_TD, const Value& g_D, const Value& b_D, double eps);

struct RopeTable {
  std::vector<double> inv_freq;  // [R/2]
  double amplitude = 1;
};
// Rotates x_THR (strided) by pos_T; kHalves rotates (i, i + R/2), kInterleaved (2i, 2i+1). `pos`
// must live as long as the tape.
Value rope(Ctx& ctx, const Value& x_THR, const int32_t* pos, const RopeTable& table,
           RopePairs pairs);

// The same for an x that nobody else needs: where ctx fuses, the result is written over it.
Value rms_norm_over(Ctx& ctx, const Value& x_TD, const Value& g_D, double eps);
Value rope_over(Ctx& ctx, const Value& x_THR, const int32_t* pos, const RopeTable& table,
                RopePairs pairs);

Value add(Ctx& ctx, const Value& a_TD, const Value& b_TD);
// A sum and its norm: add(a, b), and rms_norm of that. Where ctx fuses, the sum is written over a.
struct Normed {
  Value sum_TD, x_TD;
};
Normed add_norm(Ctx& ctx, const Value& a_TD, const Value& b_TD, const Value& g_D, double eps);
// y = silu(gate) * up
Value swiglu(Ctx& ctx, const Value& gate_TF, const Value& up_TF);
// [a ; b] along the last dimension: a copy, or a view of both where ctx fuses and they are
// neighbours in memory.
Value concat_last(Ctx& ctx, const Value& a_TX, const Value& b_TY);
// y[t] = table[ids[t]];  dtable[ids[t]] += dy[t].  table_WD may be a constant of any float type.
// ids must outlive the tape.
Value embedding(Ctx& ctx, const int32_t* ids, int64_t num_ids, const Value& table_WD);
// y[p] = x[rows[p]];  dx[rows[p]] += dy[p] in ascending p. rows must outlive the tape.
Value select_rows(Ctx& ctx, const Value& x_TD, const int32_t* rows, int64_t num_rows);

}  // namespace fathom
