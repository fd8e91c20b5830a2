// The contracts of attention, of the latent cache and of the lightning indexer: part of
// kernels/kernels.h, which says what holds for all of them.
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

// ---- attention ----------------------------------------------------------------------------------

// tokens of a cache page, and of a key block in every attention kernel
inline constexpr int64_t kPageTokens = 64;

// T query rows of num_seq sequences, packed. Row t of sequence b has position first_pos[b] + t -
// first_row[b] and sees the keys 0 .. its own position.
struct QueryRows {
  int64_t num_seq = 0;
  const int32_t* first_row = nullptr;  // [num_seq+1]
  const int32_t* first_pos = nullptr;  // [num_seq]
};
// Keys of sequence b at position p: page[first_page[b] + p / 64] + (p % 64) * stride, in elements
// of dtype. A row of dtype e4m3 holds `coded` numbers in e4m3, at the next multiple of 4 an f32
// scale for each 128 of them, then the other numbers in bf16. Rows of latents of dtype i8 are built
// alike, with codes as latent_code writes them; a page of index keys of dtype i8 holds 64 of them
// as index_code writes them.
struct KeyPages {
  const void* const* page = nullptr;
  const int32_t* first_page = nullptr;  // [num_seq]
  int64_t stride = 0;
  DType dtype = DType::kF32;  // f32, f64, bf16, e4m3 or i8
  int64_t coded = 0;          // of e4m3 and of i8's latents
};
constexpr int64_t coded_scales_at(int64_t coded) { return (coded + 3) / 4 * 4; }
constexpr int64_t coded_rest_at(int64_t coded) {
  return coded_scales_at(coded) + (coded + 127) / 128 * 4;
}
// Bytes of such a row; a multiple of 4.
constexpr int64_t coded_row_bytes(int64_t coded, int64_t rest) {
  return coded_rest_at(coded) + (rest + 1) / 2 * 4;
}

// Writes M rows of latents in codes, coded_row_bytes apart: the first `coded` numbers of a row as
// i8, for each 128 of them scale = their largest size / 127, codes = number * (127 / largest size)
// to the nearest integer, ties to even; the rest in bf16. Numbers below 1e-30 have scale and codes
// 0, numbers that are not all finite scale NaN.
struct LatentCode {
  View x;  // [M, coded + rest] strided rows
  int64_t coded = 0;
  void* rows;
};
// Absorbed (MQA) form over the shared latent: score = scale (q_lat . c + q_pe . k_pe), z =
// softmax(score) . c. A key row holds C latent then R rotary numbers. Key blocks are counted from
// position 0 (dense) or from the first selected key, so that prefill, decode, chunking and training
// add in one order; dense and fully selected rows give equal bits. With keys of bf16, rows of more
// than 256 keys have another order on machines with a matrix unit for bf16.
struct Attention {
  View q_lat;  // [T,H,C] strided
  View q_pe;   // [T,H,R] strided
  QueryRows rows;
  KeyPages keys;  // rows of C + R
  // [T,K] i32 ascending, padded with -1; null: all keys up to the own position
  View sel;
  double scale = 1;
  View z;    // [T,H,C] strided
  View lse;  // [T,H] log of the sum of exp(score), or null
};
// sequences start at position 0 and their keys are rows of `kv`
struct AttentionBwd {
  View q_lat, q_pe;
  QueryRows rows;
  View kv;  // [T,C+R]
  View sel;
  double scale = 1;
  View z, lse, dz;
  View dq_lat, dq_pe;  // strided
  bool add_dq_lat = false, add_dq_pe = false;
  View dkv;  // [T,C+R]
  bool add_dkv = false;
};
// Naive (MHA) form with expanded keys and values; sequences start at position 0 and keys are the
// rows themselves.
struct AttentionMha {
  View q_nope, q_pe;  // [T,H,N], [T,H,R] strided
  View k_nope, v;     // [T,H,N], [T,H,V] strided
  View k_pe;          // [T,R] strided rows
  QueryRows rows;
  View sel;  // as in Attention
  double scale = 1;
  View o;    // [T,H,V]
  View lse;  // [T,H] or null
};
struct AttentionMhaBwd {
  View q_nope, q_pe, k_nope, v, k_pe;
  QueryRows rows;
  View sel;
  double scale = 1;
  View o, lse, d_o;
  View dq_nope, dq_pe, dk_nope, dv, dk_pe;  // strided like their primals
  bool add_dq_nope = false, add_dq_pe = false, add_dk_nope = false, add_dv = false,
       add_dk_pe = false;
};

// ---- lightning indexer --------------------------------------------------------------------------

// I[t,s] = sum_j w[t,j] max(q[t,j] . k[s], 0), dot products over i ascending, then j ascending.
// Row t keeps the min(K, t's keys) largest: larger score, then smaller position; -0 equals +0; NaN
// and -inf come last and are kept only when nothing else is left. Never materialises T x S scores
// at long context.
//
// Keys of dtype i8: k[s] = a[s] * code, and q[t,j] is coded by the same rule with its scale b[t,j];
// then I[t,s] = a[s] * sum_j (w[t,j] * (b[t,j] / I)) max(code . code, 0), or without / I where the
// rule does not rotate. The dot products are exact.
struct IndexSelect {
  View q;  // [T,J,I] strided
  View w;  // [T,J], scale factors included
  QueryRows rows;
  KeyPages keys;  // rows of I
  View sel;       // [T,K] i32 ascending, padded with -1
};
// Writes rows of keys in codes, first .. first + M - 1 of a page: a row is rotated by a Hadamard
// matrix (without 1 / sqrt(I); rows whose length is no power of two stay as they are), scale = its
// largest size / 127, codes = row * (127 / largest size) to the nearest integer, ties to even. A
// row below 1e-30 has scale and codes 0, one that is not finite has scale NaN. The page: codes +
// 128 as u8 [4][ceil(I/4)][16][4] (16 keys side by side, 4 numbers of each), then 64 scales f32.
struct IndexCode {
  View x;      // [M,I] strided rows
  void* page;  // 64-byte aligned
  int64_t first = 0;
};
constexpr int64_t index_code_bytes(int64_t I) { return (I + 3) / 4 * 4 + 4; }  // of a key
// The scores themselves, for tests and dumps: cells after the own position are set to 0.
struct IndexScores {
  View q, w;
  QueryRows rows;
  KeyPages keys;
  View scores;  // [T,S], S >= the largest number of keys
};
// KL(p || softmax(I)) per row, p = mean over heads of the attention probabilities (absorbed form,
// lse from Attention) over all keys (sel null) or the selected ones, detached. Gradients of scale *
// sum_T kl are written when dq is not null: dI = softmax(I) - p on the support (model spec 6.2).
struct IndexKl {
  View q, w;  // [T,J,I], [T,J]
  View k;     // [T,I]; sequences start at position 0
  QueryRows rows;
  View sel;
  View q_lat, q_pe, kv, lse;  // of Attention, kv [T,C+R]
  double attn_scale = 1;
  View kl;  // [T]
  // [T] or null: share of p that the K best-scored keys of the row hold
  View mass;
  int64_t mass_topk = 0;
  double scale = 1;
  View dq, dw, dk;  // = (not +=); null: no gradient
};

}  // namespace fathom
