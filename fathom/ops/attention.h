// Attention over the latent cache (absorbed form), over expanded keys and values (naive form), and
// the lightning indexer.
#pragma once

#include <memory>
#include <vector>

#include "fathom/ops/ctx.h"

namespace fathom {

// The packed sequences of a step. Owned by the step; must outlive the tape.
struct SeqRows {
  std::vector<int32_t> first_row;  // [num_seq+1]
  std::vector<int32_t> first_pos;  // [num_seq]
  int64_t num_seq() const { return static_cast<int64_t>(first_pos.size()); }
  int64_t num_rows() const { return first_row.empty() ? 0 : first_row.back(); }
  QueryRows ref() const { return {num_seq(), first_row.data(), first_pos.data()}; }
};

// Keys as pages; either of a cache or of a contiguous tensor whose rows are the step's rows.
struct PageTable {
  std::vector<const void*> page;
  std::vector<int32_t> first_page;  // [num_seq]
  int64_t stride = 0;
  DType dtype = DType::kF32;
  int64_t coded = 0;  // see KeyPages
  KeyPages ref() const { return {page.data(), first_page.data(), stride, dtype, coded}; }
};
PageTable pages_of_rows(const View& rows_TX,
                        const SeqRows& seqs);  // sequences that start at position 0

struct AttentionOut {
  Value o;     // z_THC (absorbed) or o_THV (naive)
  Tensor lse;  // [T,H]
};

// Absorbed form. `keys` says where the key rows (C latent, then R rotary) are; `kv_TX` is the Value
// of this step's own rows and takes their gradient (training: keys are exactly those rows). sel_TK
// empty: dense. seqs must outlive the tape.
AttentionOut attention(Ctx& ctx, const Value& q_lat_THC, const Value& q_pe_THR, const Value& kv_TX,
                       const PageTable& keys, const SeqRows& seqs, const Tensor& sel_TK,
                       double scale);
// Naive form; every sequence starts at position 0. k_pe_TR strided rows.
AttentionOut attention_mha(Ctx& ctx, const Value& q_nope_THN, const Value& q_pe_THR,
                           const Value& k_nope_THN, const Value& k_pe_TR, const Value& v_THV,
                           const SeqRows& seqs, const Tensor& sel_TK, double scale);

// The K best-scored positions of every row, ascending, padded with -1. Not differentiated.
Tensor index_select(Ctx& ctx, const View& q_TJI, const View& w_TJ, const PageTable& keys,
                    const SeqRows& seqs, int64_t topk);

// The most keys that a row of the step may see.
int64_t longest_row(const SeqRows& seqs);
// What index_select gives where that is at most topk, whatever the scores: all keys of each row.
Tensor select_all(Ctx& ctx, const SeqRows& seqs, int64_t topk);

struct IndexKlOut {
  Tensor kl_T;
  Tensor mass_T;  // attention mass of the mass_topk best-scored keys; empty when mass_topk is 0
};
// Adds scale * sum_T KL(p || softmax(I)) as a loss: its gradient flows to q, w and k of the indexer
// only (model spec 6.2).
struct IndexKlInputs {
  Value q_TJI, w_TJ, k_TI;
  View q_lat_THC, q_pe_THR, kv_TX, lse_TH;  // of the main attention, detached
  double attn_scale = 1;
};
IndexKlOut index_kl(Ctx& ctx, const IndexKlInputs& in, const SeqRows& seqs, const Tensor& sel_TK,
                    double scale, int64_t mass_topk);

}  // namespace fathom
