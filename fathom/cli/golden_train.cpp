// Training values of a golden folder: loss parts, gradients, gradients that must be exactly zero,
// ten optimiser steps.
#include <fmt/format.h>

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/golden.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/objective.h"
#include "fathom/train/optimizer.h"

namespace fathom {
namespace {

constexpr double kLearningRate = 1e-3, kBiasSpeed = 1e-3;  // of the golden runs
constexpr int kSteps = 10;

struct GoldenStage {
  const char* letter;
  ObjectiveOptions options;
  bool indexer_trains, main_trains, moves_bias;
};

std::vector<GoldenStage> stages() {
  ObjectiveOptions a, b, c;
  a.mtp_weight = c.mtp_weight = 0.3;
  a.balance_weight = 0.01;
  b.lm_weight = 0;
  b.indexer_kl_weight = c.indexer_kl_weight = 1;
  c.attention = "sparse";
  return {{"a", a, false, true, true}, {"b", b, true, false, false}, {"c", c, true, true, true}};
}

bool is_indexer(const std::string& name) { return name.find(".indexer.") != std::string::npos; }

double norm(const View& v) {
  double s = 0;
  for (int64_t i = 0; i < v.numel(); ++i) s += get_element(v, i) * get_element(v, i);
  return std::sqrt(s);
}

double distance(const View& a, const View& b) {
  double s = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double d = get_element(a, i) - get_element(b, i);
    s += d * d;
  }
  return std::sqrt(s);
}

Model model_of_stage(GoldenCheck& check, const GoldenStage& stage) {
  Ctx ctx = check.runtime().ctx();
  Model model = load_model(ctx, check.folder(), WeightUse::kTrain);
  for (const Param& p : model.weights.params)
    p.value.node()->needs_grad = is_indexer(p.name) ? stage.indexer_trains : stage.main_trains;
  return model;
}

// Every parameter's gradient against the file; those that the file leaves out must be exactly zero.
void check_gradients(GoldenCheck& check, const GoldenStage& stage, const SafetensorsFile& grads) {
  const Model model = model_of_stage(check, stage);
  Tape tape;
  Ctx ctx = check.runtime().ctx(&tape);
  const TrainBatch batch = golden_batch(check.input_ids());
  run_objective(ctx, model, batch, count_losses(batch), stage.options);
  const double limit = check.runtime().real == DType::kF64 ? 1e-9 : 5e-5;
  for (const Param& p : model.weights.params) {
    const std::string name = fmt::format("{}.{}", stage.letter, p.name);
    const bool written = p.value.has_grad();
    if (!grads.find(name)) {
      check.row({.name = "zero gradient " + name,
                 .error = written ? norm(p.value.grad()) : 0,
                 .limit = 0});
      continue;
    }
    const Tensor want = grads.tensor(name);
    GoldenRow row{.name = "gradient " + name, .error = NAN, .limit = limit};
    if (written) {
      const double size = norm(want);
      row.error = distance(p.value.grad(), want) / (size > 0 ? size : 1);
    } else {
      row.note = "no gradient arrived";
    }
    check.row(row);
  }
}

void check_step(GoldenCheck& check, const std::string& prefix, const Json& want,
                const LossReport& got, double norm_got, double limit) {
  check.figure(prefix + "total", got.total, want.at("total").as_double(), limit);
  if (!want.at("grad_norm").is_null())
    check.figure(prefix + "grad_norm", norm_got, want.at("grad_norm").as_double(),
                 10 * limit * (1 + norm_got));
  check.figure(prefix + "lm", got.lm, want.at("lm").as_double(), limit);
  check.figure(prefix + "mtp", got.mtp, want.at("mtp").as_double(), limit);
  const auto per_layer = [&](const char* key, const std::vector<double>& values) {
    const Json* object = want.find(key);
    if (!object) return;
    for (const auto& [layer, value] : object->members())
      check.figure(fmt::format("{}{}.{}", prefix, key, layer),
                   values[static_cast<size_t>(std::stoi(layer))], value.as_double(), limit);
  };
  per_layer("balance", got.layer_balance);
  per_layer("kl_mean", got.layer_kl);
}

void check_curve(GoldenCheck& check, const GoldenStage& stage, const Json& want) {
  Model model = model_of_stage(check, stage);
  Ctx plain = check.runtime().ctx();
  Optimizer optimizer(plain, model.weights.params, {});
  const TrainBatch batch = golden_batch(check.input_ids());
  const LossCounts counts = count_losses(batch);
  const bool f64 = check.runtime().real == DType::kF64;
  // The figures of losses that a stage does not train are shown too, so that every forward runs
  // with a probe.
  MemoryProbe ignored;
  for (int i = 0; i <= kSteps; ++i) {
    Tape tape;
    Ctx ctx = check.runtime().ctx(i < kSteps ? &tape : nullptr, &ignored);
    const LossReport got = run_objective(ctx, model, batch, counts, stage.options);
    const double grad_norm = i < kSteps ? optimizer.grad_norm(ctx) : 0;
    check_step(check, fmt::format("curve {} step {} ", stage.letter, i + 1),
               want.at("steps").items()[static_cast<size_t>(i)], got, grad_norm, f64 ? 1e-9 : 1e-4);
    if (i == kSteps) break;
    optimizer.step(ctx, kLearningRate, grad_norm);
    if (stage.moves_bias)
      for (const Param& b : model.weights.buffers) {
        const size_t layer =
            static_cast<size_t>(std::stoi(b.name.substr(std::string("model.layers.").size())));
        update_correction_bias(b.value, got.expert_count[layer], kBiasSpeed);
      }
    model.weights.pack(plain, true);
  }
  std::vector<Param> all = model.weights.params;
  all.insert(all.end(), model.weights.buffers.begin(), model.weights.buffers.end());
  for (const Param& p : all) {
    const double w = want.at("final_param_norms").at(p.name).as_double();
    check.figure(fmt::format("curve {} norm of {}", stage.letter, p.name), norm(p.value), w,
                 (f64 ? 1e-8 : 1e-4) * (1 + w));
  }
  const std::string trained = check.folder() + "/trained10.safetensors";
  if (stage.letter == std::string("c") && file_exists(trained)) {
    const SafetensorsFile file(trained);
    for (const Param& p : all) {
      const Tensor t = file.tensor("c." + p.name);
      check.row({.name = "trained " + p.name,
                 .error = distance(p.value, t) / norm(t),
                 .limit = f64 ? 1e-7 : 1e-3});
    }
  }
}

}  // namespace

void check_golden_training(GoldenCheck& check) {
  const std::string path = check.folder() + "/train.json";
  const Json train = Json::parse(read_file(path), path);
  const std::string grads = check.folder() + "/grads.safetensors";
  for (const GoldenStage& stage : stages()) {
    if (file_exists(grads)) check_gradients(check, stage, SafetensorsFile(grads));
    if (const Json* curve = train.find(fmt::format("curve_{}", stage.letter)))
      check_curve(check, stage, *curve);
  }
}

}  // namespace fathom
