// Training values of a golden folder: loss parts, gradients, gradients that must be exactly zero,
// ten optimiser steps.
#include <fmt/core.h>

#include <cmath>
#include <cstdlib>
#include <optional>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/golden.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/objective.h"
#include "fathom/train/optimizer.h"

namespace fathom {
namespace {

constexpr double kLearningRate = 1e-3, kBiasSpeed = 1e-3;  // of the golden runs

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

// Attention of a stage, in models that have an indexer.
ObjectiveOptions options_for(const GoldenCheck& check, ObjectiveOptions options) {
  if (!check.config().has_dsa()) options.attention = "dense";
  return options;
}

Model model_of_stage(GoldenCheck& check, const GoldenStage& stage) {
  Ctx ctx = check.training_ctx();
  Model model = load_model(ctx, check.folder(), WeightUse::kTrain);
  for (const Param& p : model.weights.params)
    p.value.node()->needs_grad = is_indexer(p.name) ? stage.indexer_trains : stage.main_trains;
  return model;
}

// A figure of a JSON object, where the object has it.
void figure_of(GoldenCheck& check, const std::string& name, const Json& want, const char* key,
               double got, double limit) {
  const Json* value = want.find(key);
  if (value && !value->is_null()) check.figure(name + key, got, value->as_double(), limit);
}

// Figures by layer: {"1": 1.05, "2": 1.01}. A layer that this build has no value for fails.
void figures_by_layer(GoldenCheck& check, const std::string& name, const Json& want,
                      const char* key, const std::vector<double>& got, double limit) {
  const Json* object = want.find(key);
  if (!object) return;
  for (const auto& [layer, value] : object->members()) {
    const auto l = static_cast<size_t>(std::atoi(layer.c_str()));
    check.figure(fmt::format("{}{}.{}", name, key, layer), l < got.size() ? got[l] : NAN,
                 value.as_double(), limit * (1 + std::fabs(value.as_double())));
  }
}

// "dense" and "sparse" of train.json: every loss part of one forward pass, weighted or not.
void check_losses(GoldenCheck& check, const std::string& attention, const Json& want) {
  const Model model = model_of_stage(check, {"", {}, false, false, false});
  const TrainBatch batch = golden_batch(check.input_ids());
  const LossCounts counts = count_losses(batch);
  MemoryProbe all_losses;  // with a probe every loss is computed, whatever its weight
  Ctx ctx = check.training_ctx(nullptr, &all_losses);
  ObjectiveOptions options;
  options.attention = attention;
  const LossReport got = run_objective(ctx, model, batch, counts, options_for(check, options));
  const double limit = check.runtime().real == DType::kF64 ? 1e-9 : 1e-4;
  const std::string name = attention + " ";
  figure_of(check, name, want, "lm", got.lm, limit);
  figure_of(check, name, want, "mtp", got.mtp, limit);
  figures_by_layer(check, name, want, "balance_unweighted", got.layer_balance, limit);
  figures_by_layer(check, name, want, "kl_mean", got.layer_kl, limit);
  std::vector<double> sums = got.layer_kl;
  for (size_t l = 0; l < sums.size(); ++l)
    sums[l] *= static_cast<double>(
        model.config.is_mtp_layer(static_cast<int64_t>(l)) ? counts.mtp_rows : counts.rows);
  figures_by_layer(check, name, want, "kl_sum", sums, limit);
}

void check_gradient(GoldenCheck& check, const std::string& letter, const Param& p,
                    const SafetensorsFile& grads, double limit) {
  const std::string name = letter + "." + p.name;
  const bool written = p.value.has_grad();
  if (!grads.find(name))
    return check.row(
        {.name = "zero gradient " + name, .error = written ? norm(p.value.grad()) : 0, .limit = 0});
  const Tensor want = grads.tensor(name);
  GoldenRow row{.name = "gradient " + name, .error = NAN, .limit = limit};
  if (want.view.numel() != p.value->numel()) {
    row.note = fmt::format("expected {} elements, found {}", want.view.numel(), p.value->numel());
  } else if (written) {
    const double size = norm(want);
    row.error = distance(p.value.grad(), want) / (size > 0 ? size : 1);
  } else {
    row.note = "no gradient arrived";
  }
  check.row(row);
}

// Every parameter's gradient against the files; those that the file leaves out must be exactly
// zero. All parameters take gradients here, whatever the stage trains: that is what shows that the
// losses of the main model do not reach the indexer, nor the other way round.
void check_gradients(GoldenCheck& check, const GoldenStage& stage, const Json& train,
                     const SafetensorsFile* grads) {
  const std::string letter = stage.letter;
  const Json* norms = train.find("grad_norms_" + letter);
  if (!grads && !norms && !train.find("total_" + letter)) return;
  const Model model = model_of_stage(check, {"", {}, true, true, false});
  Tape tape;
  Ctx ctx = check.training_ctx(&tape);
  const TrainBatch batch = golden_batch(check.input_ids());
  const LossReport got =
      run_objective(ctx, model, batch, count_losses(batch), options_for(check, stage.options));
  const bool f64 = check.runtime().real == DType::kF64;
  const double limit = f64 ? 1e-9 : 5e-5;
  figure_of(check, "", train, ("total_" + letter).c_str(), got.total, f64 ? 1e-9 : 1e-4);
  std::set<std::string> known;
  for (const Param& p : model.weights.params) {
    known.insert(letter + "." + p.name);
    if (grads) check_gradient(check, letter, p, *grads, limit);
    const Json* want = norms ? norms->find(p.name) : nullptr;
    if (want)
      check.figure(fmt::format("gradient norm {}.{}", letter, p.name),
                   p.value.has_grad() ? norm(p.value.grad()) : 0, want->as_double(),
                   limit * want->as_double());
  }
  if (!grads) return;
  for (const SafetensorsEntry& e : grads->entries())
    if (e.name.starts_with(letter + ".") && !known.contains(e.name))
      check.row({.name = "gradient " + e.name, .error = NAN, .note = "no such parameter"});
}

void check_step(GoldenCheck& check, const std::string& prefix, const Json& want,
                const LossReport& got, double norm_got, double limit) {
  figure_of(check, prefix, want, "total", got.total, limit);
  figure_of(check, prefix, want, "grad_norm", norm_got, 10 * limit * (1 + norm_got));
  figure_of(check, prefix, want, "lm", got.lm, limit);
  figure_of(check, prefix, want, "mtp", got.mtp, limit);
  figures_by_layer(check, prefix, want, "balance", got.layer_balance, limit);
  figures_by_layer(check, prefix, want, "kl_mean", got.layer_kl, limit);
}

double sum(const View& v) {
  double s = 0;
  for (int64_t i = 0; i < v.numel(); ++i) s += get_element(v, i);
  return s;
}

// Norms, sums and, for stage c, all values of the parameters after the curve's steps.
void check_trained(GoldenCheck& check, const GoldenStage& stage, const Model& model,
                   const Json& want) {
  const bool f64 = check.runtime().real == DType::kF64;
  const Json* norms = want.find("final_param_norms");
  const Json* sums = want.find("final_param_sums");
  const std::string path = check.folder() + "/trained10.safetensors";
  std::optional<SafetensorsFile> file;
  if (stage.letter == std::string("c") && file_exists(path)) file.emplace(path);
  std::vector<Param> all = model.weights.params;
  all.insert(all.end(), model.weights.buffers.begin(), model.weights.buffers.end());
  for (const Param& p : all) {
    const std::string name = fmt::format(" of {}", p.name);
    const std::string prefix = fmt::format("curve {} ", stage.letter);
    const double size = norm(p.value), limit = (f64 ? 1e-8 : 1e-4) * (1 + size);
    if (const Json* w = norms ? norms->find(p.name) : nullptr)
      check.figure(prefix + "norm" + name, size, w->as_double(), limit);
    if (const Json* w = sums ? sums->find(p.name) : nullptr)
      check.figure(prefix + "sum" + name, sum(p.value), w->as_double(),
                   limit * std::sqrt(static_cast<double>(p.value->numel())));
    if (!file) continue;
    GoldenRow row{.name = "trained " + p.name, .error = NAN, .limit = f64 ? 1e-7 : 1e-3};
    if (file->find("c." + p.name)) {
      const Tensor t = file->tensor("c." + p.name);
      if (t.view.numel() == p.value->numel()) row.error = distance(p.value, t) / norm(t);
    } else {
      row.note = "the file lacks it";
    }
    check.row(row);
  }
}

void check_curve(GoldenCheck& check, const GoldenStage& stage, const Json& want) {
  Model model = model_of_stage(check, stage);
  Ctx plain = check.training_ctx();
  Optimizer optimizer(plain, model.weights.params, {});
  const TrainBatch batch = golden_batch(check.input_ids());
  const LossCounts counts = count_losses(batch);
  const bool f64 = check.runtime().real == DType::kF64;
  // The figures of losses that a stage does not train are shown too, so that every forward runs
  // with a probe.
  MemoryProbe ignored;
  int i = 0;
  for (const Json& step : want.at("steps").items()) {
    const Json* norm_want = step.find("grad_norm");
    const bool updates = norm_want && !norm_want->is_null();  // the last entry is a forward only
    Tape tape;
    ignored.clear();
    Ctx ctx = check.training_ctx(updates ? &tape : nullptr, &ignored);
    const LossReport got =
        run_objective(ctx, model, batch, counts, options_for(check, stage.options));
    const double grad_norm = updates ? optimizer.grad_norm(ctx) : 0;
    check_step(check, fmt::format("curve {} step {} ", stage.letter, ++i), step, got, grad_norm,
               f64 ? 1e-9 : 1e-4);
    if (!updates) continue;
    optimizer.step(ctx, kLearningRate, grad_norm);
    if (stage.moves_bias)
      for (const Param& b : model.weights.buffers) {
        const size_t layer =
            static_cast<size_t>(std::stoi(b.name.substr(std::string("model.layers.").size())));
        update_correction_bias(b.value, got.expert_count[layer], kBiasSpeed);
      }
    model.weights.pack(plain, true);
  }
  check_trained(check, stage, model, want);
}

}  // namespace

void check_golden_training(GoldenCheck& check) {
  const std::string path = check.folder() + "/train.json";
  const Json train = Json::parse(read_file(path), path);
  for (const char* attention : {"dense", "sparse"})
    if (const Json* losses = train.find(attention)) check_losses(check, attention, *losses);
  const std::string path_of_grads = check.folder() + "/grads.safetensors";
  std::optional<SafetensorsFile> grads;
  if (file_exists(path_of_grads)) grads.emplace(path_of_grads);
  for (const GoldenStage& stage : stages()) {
    check_gradients(check, stage, train, grads ? &*grads : nullptr);
    if (const Json* curve = train.find(fmt::format("curve_{}", stage.letter)))
      check_curve(check, stage, *curve);
  }
}

}  // namespace fathom
