// FP8 values of golden folders: models run with simulated FP8 inputs, and the components on their
// own.
#include <fmt/core.h>

#include <cmath>

#include "fathom/cli/golden.h"
#include "fathom/kernels/kernels.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/model/checkpoint_source.h"

namespace fathom {
namespace {

struct Fp8Limits {  // rounding to FP8 is discontinuous, so rows are counted (docs/formats.md)
  double row = 1e-3;
  double logits_share, attention_share = 0.95;
};

void run_fp8(GoldenCheck& check, const Model& model, Numerics numerics,
             const std::string& logits_name, const std::string& prefix, const Fp8Limits& limits) {
  Runtime& rt = check.runtime();
  MemoryProbe seen;
  Ctx ctx = rt.ctx(nullptr, &seen);
  Step step;
  for (const auto& ids : check.input_ids()) step.add_sequence(ids);
  step.numerics = numerics;
  step.form = AttnForm::kNaive;  // kv_b_proj has a quantised input only in this form
  step.selection = model.config.has_dsa() ? KeySelection::kSparse : KeySelection::kDense;
  std::vector<Tensor> forced;  // keeps what the step views
  if (prefix == "dense_forced.") {
    step.selection = KeySelection::kDense;
    step.forced_experts.resize(static_cast<size_t>(model.config.num_layers()));
    for (int64_t l = 0; l < model.config.num_hidden_layers; ++l) {
      const std::string name = fmt::format("dense.router.{}.experts", l);
      if (!check.has(name)) continue;
      check.mark(name);
      const int64_t T = step.num_rows(), A = model.config.num_experts_per_tok;
      forced.push_back(empty(rt.arena, DType::kI32, {T, A}));
      convert(reshape(check.expected().tensor(name).view, {T, A}), forced.back());
      step.forced_experts[static_cast<size_t>(l)] = forced.back();
    }
  }
  const StepOut out = forward(ctx, model, step);
  if (check.has(logits_name))
    check.compare_rows(logits_name, logits(ctx, model, out.hidden_TD), limits.row,
                       limits.logits_share);
  if (prefix != "fp8_sim.") return;
  for (const SafetensorsEntry& e : check.expected().entries()) {
    const Tensor* got =
        e.name.starts_with(prefix) ? seen.find(e.name.substr(prefix.size())) : nullptr;
    if (!got) continue;
    check.compare_rows(
        e.name, *got, limits.row,
        e.name == "fp8_sim.attn.0.out" ? limits.attention_share : limits.logits_share);
  }
}

Tensor new_like(Runtime& rt, DType t, const View& v) {
  return v.rank == 1 ? empty(rt.arena, t, {v.dim[0]}) : empty(rt.arena, t, {v.rows(), v.last()});
}

void compare_if_there(GoldenCheck& check, const std::string& name, const View& got, double limit) {
  if (check.has(name)) check.compare(name, got, limit);
}

// codes, scales and values of act_quant against the file's
void check_activations(GoldenCheck& check, const std::string& in, const std::string& bytes,
                       const std::string& scales, const std::string& dequant, ScaleFormat format) {
  if (!check.has(in)) return;
  Runtime& rt = check.runtime();
  const Tensor x = check.expected().tensor(in);
  check.mark(in);
  const View x_TD = reshape(x.view, {x.view.rows(), x.view.last()});
  const Tensor y = new_like(rt, DType::kF32, x_TD), codes = new_like(rt, DType::kE4M3, x_TD);
  const Tensor s = empty(rt.arena, DType::kF32, {x_TD.dim[0], (x_TD.dim[1] + 127) / 128});
  rt.ctx().kernels.act_quant(rt.ctx().exec(),
                             {.x = x_TD, .format = format, .y = y, .codes = codes, .scales = s});
  compare_if_there(check, bytes, codes, 0);
  compare_if_there(check, scales, s, 0);
  compare_if_there(check, dequant, y, 1e-7);
}

// Codes may be stored under their own type or as bytes.
Tensor as_e4m3(Tensor t) {
  if (t.view.dtype == DType::kU8) t.view.dtype = DType::kE4M3;
  return t;
}

void check_gemm(GoldenCheck& check, const std::string& kind) {
  Runtime& rt = check.runtime();
  Ctx ctx = rt.ctx();
  const std::string name = "weight." + kind;
  if (!check.has(name + ".bytes") || !check.has(name + ".scale_inv")) return;
  const Weight w = [&] {
    Weight stored = Weight::stored("weight", as_e4m3(check.expected().tensor(name + ".bytes")),
                                   check.expected().tensor(name + ".scale_inv"));
    stored.pack(ctx, false);
    return stored;
  }();
  for (const char* n : {".bytes", ".scale_inv"}) check.mark(name + n);
  const auto product = [&](const std::string& x, const std::string& y) {
    if (check.has(x) && check.has(y))
      check.compare(y, linear(ctx, constant(check.expected().tensor(x)), w), 2e-6);
  };
  product("act." + kind + ".dequant", "gemm." + kind + ".y");
  product("act.x", "gemm." + kind + ".y_weight_only");
}

void check_indexer(GoldenCheck& check) {
  for (const char* name : {"indexer.q", "indexer.k", "indexer.head_weights"})
    if (!check.has(name)) return;
  Runtime& rt = check.runtime();
  Ctx ctx = rt.ctx();
  const auto rotated = [&](const std::string& in, const std::string& out) {
    const Tensor x = check.expected().tensor(in);
    check.mark(in);
    Tensor y = new_like(rt, DType::kF32, reshape(x.view, {x.view.rows(), x.view.last()}));
    const View x_TD = reshape(x.view, {x.view.rows(), x.view.last()});
    ctx.kernels.round_bf16(ctx.exec(), {.x = x_TD, .y = y});
    ctx.kernels.hadamard(ctx.exec(), {.x = y, .y = y});
    ctx.kernels.round_bf16(ctx.exec(), {.x = y, .y = y});
    compare_if_there(check, out, y, 0);
    return y;
  };
  const Tensor q = rotated("indexer.q", "indexer.q_hadamard_bf16"),
               k = rotated("indexer.k", "indexer.k_hadamard_bf16");
  check_activations(check, "indexer.q_hadamard_bf16", "indexer.q_bytes", "indexer.q_scale", "",
                    ScaleFormat::kUe8m0);
  check_activations(check, "indexer.k_hadamard_bf16", "indexer.k_bytes", "indexer.k_scale", "",
                    ScaleFormat::kUe8m0);

  const Tensor raw_w = check.expected().tensor("indexer.head_weights");
  check.mark("indexer.head_weights");
  const int64_t T = raw_w.view.dim[0], J = raw_w.view.dim[1], I = k.view.dim[1], S = k.view.dim[0];
  const Value w_TJ = scale(ctx, constant(raw_w), 1 / std::sqrt(static_cast<double>(I)));
  // Every key for every query: T sequences of one query row at the last position, all over the
  // same keys.
  SeqRows seqs{{0}, {}};
  PageTable keys{.page = {}, .first_page = {}, .stride = I, .dtype = DType::kF32};
  for (int64_t t = 0; t < T; ++t) {
    seqs.first_row.push_back(static_cast<int32_t>(t + 1));
    seqs.first_pos.push_back(static_cast<int32_t>(S - 1));
    keys.first_page.push_back(0);
  }
  const auto scores = [&](const View& q_TD, const View& k_TI, const std::string& name) {
    if (!check.has(name)) return;
    keys.page.clear();
    for (int64_t s = 0; s < S; s += kPageTokens) keys.page.push_back(k_TI.at_element(s * I));
    const Tensor out = empty(rt.arena, DType::kF32, {T, S});
    ctx.kernels.index_scores(ctx.exec(), {.q = reshape(q_TD, {T, J, I}),
                                          .w = w_TJ,
                                          .rows = seqs.ref(),
                                          .keys = keys.ref(),
                                          .scores = out});
    check.compare(name, out, 2e-6);
  };
  const auto quantised = [&](const Tensor& x) {
    Tensor y = new_like(rt, DType::kF32, x);
    ctx.kernels.act_quant(ctx.exec(), {.x = x, .format = ScaleFormat::kUe8m0, .y = y});
    return y;
  };
  scores(quantised(q), quantised(k), "indexer.scores_fp8");
  scores(check.expected().tensor("indexer.q"), check.expected().tensor("indexer.k"),
         "indexer.scores_exact");
}

void check_conversions(GoldenCheck& check) {
  Runtime& rt = check.runtime();
  if (check.has("e4m3.in") && check.has("e4m3.out")) {
    const Tensor in = check.expected().tensor("e4m3.in");
    check.mark("e4m3.in");
    const Tensor out = new_like(rt, DType::kE4M3, in);
    convert(in, out);
    check.compare("e4m3.out", out, 0);
  }
  Tensor table = empty(rt.arena, DType::kF64, {256});
  for (int code = 0; code < 256; ++code) {
    const bool nan = (code & 0x7F) == 0x7F;
    table.as<double>()[code] =
        nan ? 0 : static_cast<double>(to_float(e4m3{static_cast<uint8_t>(code)}));
  }
  compare_if_there(check, "e4m3.table", table, 0);
}

// Block scales and codes of a weight: amax / 448 of each 128 x 128 block, optionally rounded up to
// a power of two.
void check_weight(GoldenCheck& check, const std::string& in, const std::string& name,
                  ScaleFormat format) {
  if (!check.has(in)) return;
  Runtime& rt = check.runtime();
  const Tensor w = check.expected().tensor(in);
  check.mark(in);
  const Tensor codes = new_like(rt, DType::kE4M3, w);
  const Tensor scales =
      empty(rt.arena, DType::kF32, {(w.view.dim[0] + 127) / 128, (w.view.dim[1] + 127) / 128});
  rt.ctx().kernels.weight_quant(rt.ctx().exec(),
                                {.w = w, .format = format, .codes = codes, .scales = scales});
  compare_if_there(check, name + ".bytes", codes, 0);
  compare_if_there(check, name + ".scale_inv", scales, 0);
}

// "dequant.NAME": a stored weight times its block scales.
void check_dequantised(GoldenCheck& check, const Model& model) {
  constexpr std::string_view kPrefix = "dequant.";
  for (const SafetensorsEntry& e : check.expected().entries()) {
    if (!e.name.starts_with(kPrefix)) continue;
    for (const Packing& p : model.weights.packing) {
      if (p.weight.name() != e.name.substr(kPrefix.size())) continue;
      Tensor w = new_like(check.runtime(), DType::kF32, p.weight.raw());
      dequantize({p.weight.raw(), p.weight.scale(), 128, 128}, w);
      check.compare(e.name, w, 1e-7);
      break;
    }
  }
}

}  // namespace

void check_golden_fp8_model(GoldenCheck& check) {
  bool any = check.has("logits_fp8_sim") || check.has("logits_fp8_sim_kv");
  for (const char* prefix : {"fp8_sim.", "dequant.", "dense_forced."})
    any = any || check.has_any(prefix);
  if (!any) return;
  Ctx ctx = check.runtime().ctx();
  const Model model = load_model(ctx, check.folder(), WeightUse::kServe);
  check_dequantised(check, model);
  const bool powers =
      model.config.quantization_config && model.config.quantization_config->scale_ue8m0;
  const Fp8Limits limits{.logits_share = powers ? 0.9 : 0.6};
  if (check.has("logits_fp8_sim") || check.has_any("fp8_sim."))
    run_fp8(check, model, Numerics::kFp8, "logits_fp8_sim", "fp8_sim.", limits);
  if (check.has("logits_fp8_sim_kv"))
    run_fp8(check, model, Numerics::kFp8Cache, "logits_fp8_sim_kv", "", limits);
  if (check.has("dense_forced.logits_fp8_sim"))
    run_fp8(check, model, Numerics::kFp8, "dense_forced.logits_fp8_sim", "dense_forced.", limits);
}

void check_golden_fp8_units(GoldenCheck& check) {
  check.runtime().real = DType::kF32;  // the components are of that type
  for (const auto& [kind, format] :
       {std::pair{"f32", ScaleFormat::kF32}, std::pair{"ue8m0", ScaleFormat::kUe8m0}}) {
    const std::string k = kind;
    check_activations(check, "act.x", "act." + k + ".bytes", "act." + k + ".scale",
                      "act." + k + ".dequant", format);
    check_weight(check, "weight.w", "weight." + k, format);
    check_weight(check, "partial.w", "partial." + k, format);
    check_gemm(check, k);
  }
  check_indexer(check);
  check_conversions(check);
}

}  // namespace fathom
