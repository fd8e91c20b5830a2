#include "fathom/cli/golden.h"

#include <fmt/core.h>

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

bool is_integer(DType t) {
  return t == DType::kI64 || t == DType::kI32 || t == DType::kU8 || t == DType::kI8;
}

std::string coordinate(const View& v, int64_t i) {
  std::string out;
  for (int d = v.rank - 1; d >= 0; --d) {
    out = fmt::format("{}{}{}", i % v.dim[d], out.empty() ? "" : ", ", out);
    i /= v.dim[d];
  }
  return "[" + out + "]";
}

}  // namespace

bool GoldenReport::passed() const {
  for (const GoldenRow& r : rows)
    if (!r.passed()) return false;
  return !rows.empty();
}

GoldenCheck::GoldenCheck(const std::string& folder, Precision precision)
    : folder_(folder),
      precision_(precision),
      runtime_(precision),
      expected_(folder + "/expected.safetensors") {
  if (file_exists(folder + "/config.json")) config_ = read_config(folder + "/config.json");
}

bool GoldenCheck::has_any(const std::string& prefix) const {
  for (const SafetensorsEntry& e : expected_.entries())
    if (e.name.starts_with(prefix)) return true;
  return false;
}

double GoldenCheck::forward_limit(const std::string& name) const {
  if (precision_ == Precision::kF32) return 3e-5;
  const SafetensorsEntry* e = expected_.find(name);
  return e && e->dtype == DType::kF64 ? 1e-10 : 1e-6;
}

Ctx GoldenCheck::training_ctx(Tape* tape, Probe* probe) {
  Ctx ctx = runtime_.ctx(tape, probe);
  ctx.gradient_products = choose_gradient_products(ctx, "auto");
  return ctx;
}

void GoldenCheck::compare(const std::string& name, const View& found, double limit) {
  Tensor want = expected_.tensor(name);
  View got = found;
  if (got.dtype == DType::kE4M3 && dtype_bytes(want.view.dtype) == 1)
    got.dtype = want.view.dtype = DType::kU8;  // codes are compared as bytes
  mark(name);
  GoldenRow r{.name = name, .limit = limit};
  if (got.numel() != want.view.numel()) {
    r.error = NAN;
    r.note = fmt::format("expected {} elements, found {}", want.view.numel(), got.numel());
    return row(r);
  }
  double largest = 0, worst = 0;
  int64_t where = 0, differing = 0;
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double w = get_element(want, i), g = get_element(got, i), error = std::fabs(g - w);
    largest = std::max(largest, std::fabs(w));
    differing += g != w;
    if (!(error <= worst)) {  // NaN counts as worst
      worst = error;
      where = i;
      if (std::isnan(error)) break;
    }
  }
  if (is_integer(want.view.dtype)) {
    r.error = static_cast<double>(differing);
    r.limit = 0;
  } else {
    r.error = largest > 0 ? worst / largest : worst;
  }
  if (r.error != 0)
    r.note = fmt::format("{}: expected {}, found {}", coordinate(want, where),
                         get_element(want, where), get_element(got, where));
  row(r);
}

void GoldenCheck::compare_rows(const std::string& name, const View& got, double row_limit,
                               double least_share) {
  const Tensor want = expected_.tensor(name);
  mark(name);
  GoldenRow r{.name = name, .limit = 1 - least_share};
  if (got.numel() != want.view.numel()) {
    r.error = NAN;
    r.note = fmt::format("expected {} elements, found {}", want.view.numel(), got.numel());
    return row(r);
  }
  const int64_t width = want.view.last(), rows = want.view.rows();
  int64_t bad = 0;
  for (int64_t t = 0; t < rows; ++t) {
    double largest = 0, worst = 0;
    for (int64_t i = t * width; i < (t + 1) * width; ++i) {
      largest = std::max(largest, std::fabs(get_element(want, i)));
      worst = std::max(worst, std::fabs(get_element(want, i) - get_element(got, i)));
    }
    bad += !(worst <= row_limit * largest);
  }
  r.error = static_cast<double>(bad) / static_cast<double>(rows);
  r.note = fmt::format("{} of {} rows within {}", rows - bad, rows, row_limit);
  row(r);
}

void GoldenCheck::figure(const std::string& name, double got, double want, double limit) {
  row({.name = name,
       .error = std::fabs(got - want),
       .limit = limit,
       .note = fmt::format("expected {}, found {}", want, got)});
}

std::vector<std::vector<int32_t>> GoldenCheck::input_ids() const {
  const Tensor ids = expected_.tensor("input_ids");
  if (ids.view.rank != 2 || ids.view.numel() == 0 || !is_integer(ids.view.dtype))
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: input_ids: expected integers [B, T], found {}", folder_,
                            expected_.find("input_ids")->describe()));
  std::vector<std::vector<int32_t>> out(static_cast<size_t>(ids.view.dim[0]));
  const int64_t T = ids.view.dim[1];
  for (size_t b = 0; b < out.size(); ++b)
    for (int64_t t = 0; t < T; ++t) {
      const double id = get_element(ids, static_cast<int64_t>(b) * T + t);
      if (id < 0 || id >= static_cast<double>(config_.vocab_size))
        throw Error(Code::kInvalidArgument,
                    fmt::format("{}: input_ids: expected ids below the vocabulary's {}, found {}",
                                folder_, config_.vocab_size, id));
      out[b].push_back(static_cast<int32_t>(id));
    }
  return out;
}

GoldenReport GoldenCheck::finish() {
  for (const SafetensorsEntry& e : expected_.entries())
    if (!seen_.contains(e.name)) report_.not_compared.push_back(e.name);
  return std::move(report_);
}

GoldenReport check_golden(const std::string& folder, Precision precision) {
  if (!file_exists(folder + "/expected.safetensors"))
    throw Error(Code::kNotFound,
                fmt::format("{}: expected a folder with expected.safetensors", folder),
                "give a folder of the golden format");
  GoldenCheck check(folder, precision);
  if (check.has("keep_mask")) {
    check_golden_policy(check);
  } else if (!file_exists(folder + "/config.json")) {
    if (!check.has_any("e4m3.") && !check.has_any("act.") && !check.has_any("gemm.") &&
        !check.has_any("indexer."))
      throw Error(
          Code::kInvalidArgument,
          fmt::format("{}: there is no config.json and these are no FP8 components", folder),
          "give a folder of a model, or fp8-units");
    check_golden_fp8_units(check);
  } else {
    check_golden_constants(check);
    check_golden_forward(check);
    check_golden_fp8_model(check);
    if (file_exists(folder + "/train.json")) check_golden_training(check);
  }
  return check.finish();
}

}  // namespace fathom
