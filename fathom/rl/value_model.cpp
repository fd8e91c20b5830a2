#include "fathom/rl/value_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/infer/engine.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/ops/basic.h"
#include "fathom/rl/response_list.h"

namespace fathom {
namespace {

bool reaches_value_head(const std::string& name, const ModelConfig& c) {
  if (name == "lm_head.weight" || name.find(".indexer.") != std::string::npos) return false;
  for (int64_t l = 0; l < c.num_nextn_predict_layers; ++l)
    if (name.starts_with(fmt::format("model.layers.{}.", c.num_hidden_layers + l))) return false;
  return true;
}

ValueModel attach(const Ctx& ctx, Model model, const std::string& name, const Tensor& head) {
  for (const Param& p : model.weights.params)
    if (!reaches_value_head(p.name, model.config)) p.value.node()->needs_grad = false;
  ValueModel v{std::move(model), Weight::trainable(name, head)};
  v.model.weights.params.push_back({name, v.head.value()});
  v.model.weights.packing.push_back({v.head, true, true});
  v.head.pack(ctx, true);
  return v;
}

// Packed texts and the rows whose values are wanted.
struct ValueRows {
  Step step;
  std::vector<int32_t> row;
};

ValueRows make_rows(const ValueModel& v, const ValueOptions& options) {
  ValueRows rows;
  rows.step.selection = usable_selection(v.model.config, options.selection);
  return rows;
}

// The values before the sampled tokens of a rollout.
void add_rollout(const Rollout& r, ValueRows* rows) {
  const auto first = static_cast<int32_t>(rows->step.num_rows() + r.prompt_len - 1);
  rows->step.add_sequence({r.tokens.begin(), r.tokens.end() - 1});
  for (size_t t = 0; t < r.sampled.size(); ++t)
    if (r.sampled[t]) rows->row.push_back(first + static_cast<int32_t>(t));
}

void add_text(const std::vector<int32_t>& text, ValueRows* rows) {
  FM_CHECK(!text.empty(), "a text without tokens has no score");
  rows->step.add_sequence(text);
  rows->row.push_back(static_cast<int32_t>(rows->step.num_rows() - 1));
}

// [rows] values with a gradient when a tape is there. `rows` must outlive the tape.
Value forward_values(Ctx& ctx, const ValueModel& v, const ValueRows& rows) {
  const StepOut out = forward(ctx, v.model, rows.step);
  const Value rows_TD = select_rows(ctx, out.hidden_TD, rows.row.data(), std::ssize(rows.row));
  return linear(ctx, rows_TD, v.head);
}

std::vector<double> numbers(const Value& v) {
  std::vector<double> out;
  for (int64_t i = 0; i < v->numel(); ++i) out.push_back(get_element(v, i));
  return out;
}

// Runs the tape with these gradients of the values.
void backward(Ctx& ctx, const Value& values, const std::vector<double>& dvalue) {
  if (!ctx.tape) return;
  const GradSink sink = values.grad_sink(ctx.arena);
  if (sink) convert(make_view(dvalue.data(), DType::kF64, {std::ssize(dvalue), 1}), sink.view);
  ctx.tape->backward();
}

// Sizes of consecutive parts of at most max_rows rows, at least one item each.
template <class F>
void for_parts(size_t num_items, int64_t max_rows, const F& rows_of, auto use) {
  for (size_t first = 0, end = 0; first < num_items; first = end) {
    int64_t rows = 0;
    while (end < num_items && (end == first || rows + rows_of(end) <= max_rows))
      rows += rows_of(end++);
    use(first, end);
  }
}

struct ValueTerm {
  double loss, slope;
  bool clipped;
};

ValueTerm value_term(double v, double old, double target, double clip) {
  const double error = v - target;
  if (clip > 0) {
    const double clipped_error = std::clamp(v, old - clip, old + clip) - target;
    // Beyond the clip the value is constant, and so is the loss.
    if (clipped_error * clipped_error > error * error)
      return {clipped_error * clipped_error / 2, 0, true};
  }
  return {error * error / 2, error, false};
}

double log_sigmoid(double x) {
  return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x));
}

}  // namespace

ValueModel with_value_head(const Ctx& ctx, Model model, const std::string& name) {
  const Tensor head = zeros(ctx.arena, ctx.real, {1, model.config.hidden_size});
  return attach(ctx, std::move(model), name, head);
}

ValueModel load_value_model(const Ctx& ctx, const std::string& folder) {
  const CheckpointFolder files(folder);
  const int64_t D = files.config().hidden_size;
  for (const char* name : {kScoreName, kValueHeadName}) {
    if (!files.contains(name)) continue;
    const Tensor stored = files.tensor(name);
    if (stored.view.numel() != D)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: {}: expected {} numbers, found {}", folder, name, D,
                              stored.view.numel()),
                  "a reward model gives one score");
    const Tensor head = empty(ctx.arena, ctx.real, {1, D});
    convert(reshape(stored.view, {1, D}), head);
    return attach(ctx, load_model(ctx, folder, WeightUse::kTrain), name, head);
  }
  throw Error(
      Code::kNotFound,
      fmt::format("{}: expected a tensor {} or {}, found none", folder, kScoreName, kValueHeadName),
      "is this a language model? A critic starts from one with a head of zeros");
}

// ---- critic ------------------------------------------------------------------------------------

std::vector<std::vector<double>> rollout_values(Ctx& ctx, const ValueModel& critic,
                                                std::span<const Rollout* const> rollouts,
                                                const ValueOptions& options) {
  Ctx forward_only = ctx;
  forward_only.tape = nullptr;
  std::vector<std::vector<double>> out;
  const auto rows_of = [&](size_t i) { return std::ssize(rollouts[i]->tokens) - 1; };
  for_parts(rollouts.size(), options.rows_per_pass, rows_of, [&](size_t first, size_t end) {
    ValueRows rows = make_rows(critic, options);
    for (size_t i = first; i < end; ++i) add_rollout(*rollouts[i], &rows);
    const Value values = forward_values(forward_only, critic, rows);
    const std::vector<double> all = numbers(values);
    size_t k = 0;
    for (size_t i = first; i < end; ++i) {
      const auto n = static_cast<size_t>(rollouts[i]->num_sampled());
      out.push_back(spread_entries(*rollouts[i], std::span(all).subspan(k, n)));
      k += n;
    }
  });
  return out;
}

ValueReport run_value_objective(Ctx& ctx, const ValueModel& critic,
                                std::span<const ValueSample> part, int64_t num_tok,
                                const ValueOptions& o) {
  ValueReport report;
  const auto rows_of = [&](size_t i) { return std::ssize(part[i].rollout->tokens) - 1; };
  const double weight = num_tok > 0 ? o.value_weight / static_cast<double>(num_tok) : 0;
  for_parts(part.size(), o.rows_per_pass, rows_of, [&](size_t first, size_t end) {
    ValueRows rows = make_rows(critic, o);
    for (size_t i = first; i < end; ++i) add_rollout(*part[i].rollout, &rows);
    const Value values = forward_values(ctx, critic, rows);
    std::vector<double> dvalue;
    for (size_t i = first; i < end; ++i) {
      const std::vector<double> targets = sampled_entries(*part[i].rollout, part[i].value_target),
                                old = sampled_entries(*part[i].rollout, part[i].old_value);
      for (size_t t = 0; t < targets.size(); ++t) {
        const double v = get_element(values, std::ssize(dvalue)), target = targets[t];
        const ValueTerm term = value_term(v, old[t], target, o.value_clip);
        dvalue.push_back(weight * term.slope);
        report.loss += weight * term.loss;
        report.num_clipped += term.clipped;
        report.sum_squared += (v - target) * (v - target);
        report.sum_target += target;
        report.sum_squared_target += target * target;
      }
    }
    report.num_tok += std::ssize(dvalue);
    backward(ctx, values, dvalue);
  });
  return report;
}

double ValueReport::explained_variance() const {
  if (num_tok == 0) return 0;
  const auto n = static_cast<double>(num_tok);
  const double variance = sum_squared_target / n - sum_target / n * (sum_target / n);
  return variance > 0 ? 1 - sum_squared / n / variance : 0;
}

void ValueReport::add(const ValueReport& part) {
  num_tok += part.num_tok;
  loss += part.loss;
  sum_squared += part.sum_squared;
  sum_target += part.sum_target;
  sum_squared_target += part.sum_squared_target;
  num_clipped += part.num_clipped;
}

// ---- reward model ------------------------------------------------------------------------------

std::vector<double> reward_scores(Ctx& ctx, const ValueModel& reward_model,
                                  std::span<const std::vector<int32_t>> texts,
                                  const ValueOptions& options) {
  Ctx forward_only = ctx;
  forward_only.tape = nullptr;
  std::vector<double> out;
  const auto rows_of = [&](size_t i) { return std::ssize(texts[i]); };
  for_parts(texts.size(), options.rows_per_pass, rows_of, [&](size_t first, size_t end) {
    ValueRows rows = make_rows(reward_model, options);
    for (size_t i = first; i < end; ++i) add_text(texts[i], &rows);
    const std::vector<double> scores = numbers(forward_values(forward_only, reward_model, rows));
    out.insert(out.end(), scores.begin(), scores.end());
  });
  return out;
}

PreferenceReport run_preference_objective(Ctx& ctx, const ValueModel& reward_model,
                                          std::span<const PreferencePair> part, int64_t num_pairs,
                                          const ValueOptions& options) {
  PreferenceReport report;
  const auto rows_of = [&](size_t i) {
    return std::ssize(part[i].chosen) + std::ssize(part[i].rejected);
  };
  const double weight = num_pairs > 0 ? 1 / static_cast<double>(num_pairs) : 0;
  for_parts(part.size(), options.rows_per_pass, rows_of, [&](size_t first, size_t end) {
    ValueRows rows = make_rows(reward_model, options);
    for (size_t i = first; i < end; ++i) {
      add_text(part[i].chosen, &rows);
      add_text(part[i].rejected, &rows);
    }
    const Value scores = forward_values(ctx, reward_model, rows);
    const std::vector<double> s = numbers(scores);
    std::vector<double> dscore;
    for (size_t k = 0; k < s.size(); k += 2) {
      const double margin = s[k] - s[k + 1];
      const double slope = -weight / (1 + std::exp(margin));
      dscore.insert(dscore.end(), {slope, -slope});
      report.loss -= weight * log_sigmoid(margin);
      report.sum_margin += margin;
      report.num_right += margin > 0;
      ++report.num_pairs;
    }
    backward(ctx, scores, dscore);
  });
  return report;
}

double PreferenceReport::accuracy() const {
  return num_pairs > 0 ? static_cast<double>(num_right) / static_cast<double>(num_pairs) : 0;
}

void PreferenceReport::add(const PreferenceReport& part) {
  num_pairs += part.num_pairs;
  num_right += part.num_right;
  loss += part.loss;
  sum_margin += part.sum_margin;
}

}  // namespace fathom
