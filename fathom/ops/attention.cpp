#include "fathom/ops/attention.h"

#include <algorithm>
#include <numeric>

#include "fathom/tensor/dims.h"

namespace fathom {
namespace {

void check_rows(const char* op, const SeqRows& seqs, int64_t num_rows) {
  FM_CHECK(seqs.num_rows() == num_rows, "{}: {} rows of sequences, {} rows of queries", op,
           seqs.num_rows(), num_rows);
}

void check_from_start(const char* op, const SeqRows& seqs) {
  for (const int32_t pos : seqs.first_pos)
    FM_CHECK(pos == 0, "{}: gradients need whole sequences, one starts at {}", op, pos);
}

void add_to_gradient(Ctx& ctx, const Tensor& dx, const Value& x) {
  if (!x.needs_grad()) return;
  const GradSink sink = x.grad_sink(ctx.arena);
  const View& from = dx;
  if (from.rank == 2) {
    ctx.kernels.accumulate(ctx.exec(), {.x = from, .y = sink.view, .add = sink.add});
    return;
  }
  // Heads one by one: the gradient may be a strided part of a larger one.
  for (int64_t j = 0; j < from.dim[1]; ++j) {
    const auto head = [j](View v) {
      v.data = v.at_element(j * v.stride[1]);
      v.dim[1] = v.dim[2];
      v.stride[1] = 1;
      v.rank = 2;
      return v;
    };
    ctx.kernels.accumulate(ctx.exec(), {.x = head(from), .y = head(sink.view), .add = sink.add});
  }
}

}  // namespace

PageTable pages_of_rows(const View& rows_TX, const SeqRows& seqs) {
  PageTable table{.stride = rows_TX.stride[0], .dtype = rows_TX.dtype};
  for (int64_t b = 0; b < seqs.num_seq(); ++b) {
    const auto i = static_cast<size_t>(b);
    FM_CHECK(seqs.first_pos[i] == 0, "sequence {} starts at {}, its first keys are not here", b,
             seqs.first_pos[i]);
    table.first_page.push_back(static_cast<int32_t>(table.page.size()));
    for (int64_t t = seqs.first_row[i]; t < seqs.first_row[i + 1]; t += kPageTokens)
      table.page.push_back(rows_TX.at_element(t * rows_TX.stride[0]));
  }
  return table;
}

AttentionOut attention(Ctx& ctx, const Value& q_lat_THC, const Value& q_pe_THR, const Value& kv_TX,
                       const PageTable& keys, const SeqRows& seqs, const Tensor& sel_TK,
                       double scale) {
  Dims d("attention");
  FM_DIMS(d, q_lat_THC, q_pe_THR);
  if (kv_TX) FM_DIMS(d, kv_TX);
  if (sel_TK) FM_DIMS(d, sel_TK);
  FM_CHECK(!kv_TX || d['X'] == d['C'] + d['R'], "attention: key rows of {}, expected {} + {}",
           d['X'], d['C'], d['R']);
  check_rows("attention", seqs, d['T']);
  const Value z_THC = ctx.make({d['T'], d['H'], d['C']}, {&q_lat_THC, &q_pe_THR, &kv_TX});
  const Tensor lse_TH = ctx.scratch(ctx.real, {d['T'], d['H']});
  ctx.kernels.attention(ctx.exec(), {.q_lat = q_lat_THC,
                                     .q_pe = q_pe_THR,
                                     .rows = seqs.ref(),
                                     .keys = keys.ref(),
                                     .sel = sel_TK,
                                     .scale = scale,
                                     .z = z_THC,
                                     .lse = lse_TH});
  if (ctx.tape && z_THC.needs_grad()) check_from_start("attention", seqs);
  if (!ctx.tape) return {z_THC, lse_TH};
  ctx.on_backward(z_THC, [=, &ctx, rows = seqs.ref()] {
    const GradSink dq = q_lat_THC.grad_sink(ctx.arena), dq_pe = q_pe_THR.grad_sink(ctx.arena);
    const GradSink dkv = kv_TX.grad_sink(ctx.arena);
    ctx.kernels.attention_bwd(ctx.exec(), {.q_lat = q_lat_THC,
                                           .q_pe = q_pe_THR,
                                           .rows = rows,
                                           .kv = kv_TX,
                                           .sel = sel_TK,
                                           .scale = scale,
                                           .z = z_THC,
                                           .lse = lse_TH,
                                           .dz = z_THC.grad(),
                                           .dq_lat = dq.view,
                                           .dq_pe = dq_pe.view,
                                           .add_dq_lat = dq.add,
                                           .add_dq_pe = dq_pe.add,
                                           .dkv = dkv.view,
                                           .add_dkv = dkv.add});
  });
  return {z_THC, lse_TH};
}

AttentionOut attention_mha(Ctx& ctx, const Value& q_nope_THN, const Value& q_pe_THR,
                           const Value& k_nope_THN, const Value& k_pe_TR, const Value& v_THV,
                           const SeqRows& seqs, const Tensor& sel_TK, double scale) {
  Dims d("attention_mha");
  FM_DIMS(d, q_nope_THN, q_pe_THR, k_nope_THN, k_pe_TR, v_THV);
  if (sel_TK) FM_DIMS(d, sel_TK);
  check_rows("attention_mha", seqs, d['T']);
  check_from_start("attention_mha", seqs);
  const Value o_THV =
      ctx.make({d['T'], d['H'], d['V']}, {&q_nope_THN, &q_pe_THR, &k_nope_THN, &k_pe_TR, &v_THV});
  const Tensor lse_TH = ctx.scratch(ctx.real, {d['T'], d['H']});
  ctx.kernels.attention_mha(ctx.exec(), {.q_nope = q_nope_THN,
                                         .q_pe = q_pe_THR,
                                         .k_nope = k_nope_THN,
                                         .v = v_THV,
                                         .k_pe = k_pe_TR,
                                         .rows = seqs.ref(),
                                         .sel = sel_TK,
                                         .scale = scale,
                                         .o = o_THV,
                                         .lse = lse_TH});
  if (!ctx.tape) return {o_THV, lse_TH};
  ctx.on_backward(o_THV, [=, &ctx, rows = seqs.ref()] {
    const GradSink dq = q_nope_THN.grad_sink(ctx.arena), dq_pe = q_pe_THR.grad_sink(ctx.arena);
    const GradSink dk = k_nope_THN.grad_sink(ctx.arena), dk_pe = k_pe_TR.grad_sink(ctx.arena);
    const GradSink dv = v_THV.grad_sink(ctx.arena);
    ctx.kernels.attention_mha_bwd(ctx.exec(), {.q_nope = q_nope_THN,
                                               .q_pe = q_pe_THR,
                                               .k_nope = k_nope_THN,
                                               .v = v_THV,
                                               .k_pe = k_pe_TR,
                                               .rows = rows,
                                               .sel = sel_TK,
                                               .scale = scale,
                                               .o = o_THV,
                                               .lse = lse_TH,
                                               .d_o = o_THV.grad(),
                                               .dq_nope = dq.view,
                                               .dq_pe = dq_pe.view,
                                               .dk_nope = dk.view,
                                               .dv = dv.view,
                                               .dk_pe = dk_pe.view,
                                               .add_dq_nope = dq.add,
                                               .add_dq_pe = dq_pe.add,
                                               .add_dk_nope = dk.add,
                                               .add_dv = dv.add,
                                               .add_dk_pe = dk_pe.add});
  });
  return {o_THV, lse_TH};
}

Tensor index_select(Ctx& ctx, const View& q_TJI, const View& w_TJ, const PageTable& keys,
                    const SeqRows& seqs, int64_t topk) {
  Dims d("index_select");
  FM_DIMS(d, q_TJI, w_TJ);
  check_rows("index_select", seqs, d['T']);
  FM_CHECK(topk >= 1, "index_select: topk is {}", topk);
  Tensor sel_TK = ctx.scratch(DType::kI32, {d['T'], topk});
  ctx.kernels.index_select(
      ctx.exec(), {.q = q_TJI, .w = w_TJ, .rows = seqs.ref(), .keys = keys.ref(), .sel = sel_TK});
  return sel_TK;
}

int64_t longest_row(const SeqRows& seqs) {
  int64_t longest = 0;
  for (size_t b = 0; b < seqs.first_pos.size(); ++b)
    longest =
        std::max<int64_t>(longest, seqs.first_pos[b] + seqs.first_row[b + 1] - seqs.first_row[b]);
  return longest;
}

Tensor select_all(Ctx& ctx, const SeqRows& seqs, int64_t topk) {
  FM_CHECK(longest_row(seqs) <= topk, "select_all: {} keys, topk is {}", longest_row(seqs), topk);
  Tensor sel_TK = ctx.scratch(DType::kI32, {seqs.num_rows(), topk});
  for (int64_t b = 0; b < seqs.num_seq(); ++b) {
    const auto i = static_cast<size_t>(b);
    for (int32_t t = seqs.first_row[i]; t < seqs.first_row[i + 1]; ++t) {
      int32_t* row = sel_TK.view.as<int32_t>() + t * topk;
      const int32_t keys = seqs.first_pos[i] + t - seqs.first_row[i] + 1;
      std::iota(row, row + keys, 0);
      std::fill(row + keys, row + topk, -1);
    }
  }
  return sel_TK;
}

IndexKlOut index_kl(Ctx& ctx, const IndexKlInputs& in, const SeqRows& seqs, const Tensor& sel_TK,
                    double scale, int64_t mass_topk) {
  Dims d("index_kl");
  const Value &q_TJI = in.q_TJI, &w_TJ = in.w_TJ, &k_TI = in.k_TI;
  const View &q_lat_THC = in.q_lat_THC, &q_pe_THR = in.q_pe_THR, &kv_TX = in.kv_TX;
  const View& lse_TH = in.lse_TH;
  FM_DIMS(d, q_TJI, w_TJ, k_TI, q_lat_THC, q_pe_THR, kv_TX, lse_TH);
  if (sel_TK) FM_DIMS(d, sel_TK);
  check_rows("index_kl", seqs, d['T']);
  check_from_start("index_kl", seqs);
  const int64_t T = d['T'], J = d['J'], I = d['I'];
  const bool with_grad = ctx.tape && (q_TJI.needs_grad() || w_TJ.needs_grad() || k_TI.needs_grad());
  IndexKlOut out{.kl_T = ctx.scratch(ctx.real, {T}), .mass_T = {}};
  if (mass_topk > 0) out.mass_T = ctx.scratch(ctx.real, {T});
  Tensor dq, dw, dk;
  if (with_grad) {
    dq = ctx.scratch(ctx.real, {T, J, I});
    dw = ctx.scratch(ctx.real, {T, J});
    dk = ctx.scratch(ctx.real, {T, I});
  }
  ctx.kernels.index_kl(ctx.exec(), {.q = q_TJI,
                                    .w = w_TJ,
                                    .k = k_TI,
                                    .rows = seqs.ref(),
                                    .sel = sel_TK,
                                    .q_lat = q_lat_THC,
                                    .q_pe = q_pe_THR,
                                    .kv = kv_TX,
                                    .lse = lse_TH,
                                    .attn_scale = in.attn_scale,
                                    .kl = out.kl_T,
                                    .mass = out.mass_T,
                                    .mass_topk = mass_topk,
                                    .scale = scale,
                                    .dq = dq,
                                    .dw = dw,
                                    .dk = dk});
  if (with_grad) {
    ctx.tape->record([q_TJI, w_TJ, k_TI, dq, dw, dk, &ctx] {
      add_to_gradient(ctx, dq, q_TJI);
      add_to_gradient(ctx, dw, w_TJ);
      add_to_gradient(ctx, dk, k_TI);
    });
  }
  return out;
}

}  // namespace fathom
