// Comparison of this build with expected values in a folder (format: docs/formats.md, "golden
// folders").
#pragma once

#include <set>
#include <string>
#include <vector>

#include "fathom/cli/runtime.h"
#include "fathom/tensor/probe.h"
#include "fathom/tensor/safetensors.h"
#include "fathom/train/objective.h"

namespace fathom {

struct GoldenRow {
  std::string name;  // tensor or figure
  double error = 0;  // in the unit of the limit; for exact rows the number of differing elements
  double limit = 0;  // passes when error <= limit
  std::string note;  // where the worst element is
  bool passed() const { return error <= limit; }  // NaN fails
};

struct GoldenReport {
  std::vector<GoldenRow> rows;
  std::vector<std::string> not_compared;  // expected tensors that no part of the check covers
  bool passed() const;
};

// Everything that the folder holds: forward, selection, routing, FP8 paths, losses, gradients,
// ten-step curves, greedy continuation, FP8 component files, policy objectives. Throws Error for a
// folder that is none.
GoldenReport check_golden(const std::string& folder, Precision precision);

// ---- shared by the parts
// ---------------------------------------------------------------------------------------------

class GoldenCheck {
 public:
  GoldenCheck(const std::string& folder, Precision precision);

  const std::string& folder() const { return folder_; }
  Runtime& runtime() { return runtime_; }
  // With the products of the backward pass that training takes here.
  Ctx training_ctx(Tape* tape = nullptr, Probe* probe = nullptr);
  const SafetensorsFile& expected() const { return expected_; }
  bool has(const std::string& name) const { return expected_.find(name) != nullptr; }
  // An expected tensor that a check takes as its input.
  Tensor read(const std::string& name) {
    mark(name);
    return expected_.tensor(name);
  }
  // max|got - want| / max|want| against `limit`; integers must be equal. `got` may be flattened
  // differently.
  void compare(const std::string& name, const View& got, double limit);
  // Share of rows whose own max|got - want| / max|want| is above row_limit, against 1 -
  // least_share.
  void compare_rows(const std::string& name, const View& got, double row_limit, double least_share);
  void figure(const std::string& name, double got, double want, double limit);  // absolute
  void row(GoldenRow row) { report_.rows.push_back(std::move(row)); }
  void mark(const std::string& name) { seen_.insert(name); }
  double forward_limit(
      const std::string& name) const;  // by precision and by how the value is stored
  bool has_any(const std::string& prefix) const;
  // Throws Error unless they are [B,T] integers of the vocabulary.
  std::vector<std::vector<int32_t>> input_ids() const;
  const ModelConfig& config() const { return config_; }  // empty for FP8 components
  GoldenReport finish();

 private:
  std::string folder_;
  Precision precision_;
  Runtime runtime_;
  SafetensorsFile expected_;
  ModelConfig config_;
  std::set<std::string> seen_;
  GoldenReport report_;
};

// Every sequence whole; the last token of each has no target.
TrainBatch golden_batch(const std::vector<std::vector<int32_t>>& ids);

void check_golden_constants(GoldenCheck& check);
void check_golden_forward(GoldenCheck& check);
void check_golden_fp8_model(GoldenCheck& check);
void check_golden_fp8_units(GoldenCheck& check);
void check_golden_training(GoldenCheck& check);
void check_golden_policy(GoldenCheck& check);

}  // namespace fathom
