// Forward values of a golden folder: hidden states, attention, selection, routing, logits,
// multi-token prediction.
#include <fmt/core.h>

#include <cmath>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/golden.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/rope_frequencies.h"
#include "fathom/ops/basic.h"
#include "fathom/train/objective.h"

namespace fathom {
namespace {

// log p(token t+1 | tokens 0..t) of every row but the last of each sequence.
Tensor log_probs(Runtime& rt, const View& logits_TW, const TrainBatch& batch) {
  const int64_t T = logits_TW.dim[0];
  Ctx ctx = rt.ctx();
  const Tensor nll = empty(rt.arena, rt.real, {T});
  ctx.kernels.cross_entropy(ctx.exec(),
                            {.logits = logits_TW, .target = batch.target.data(), .nll = nll});
  std::vector<double> kept;
  for (int64_t t = 0; t < T; ++t)
    if (batch.target[static_cast<size_t>(t)] >= 0) kept.push_back(-get_element(nll, t));
  Tensor out = empty(rt.arena, DType::kF64, {static_cast<int64_t>(kept.size())});
  std::copy(kept.begin(), kept.end(), out.as<double>());
  return out;
}

void run(GoldenCheck& check, const Model& model, const std::string& prefix,
         const std::string& attention, const std::string& form) {
  Runtime& rt = check.runtime();
  MemoryProbe seen;
  Ctx ctx = rt.ctx(nullptr, &seen);
  const TrainBatch batch = golden_batch(check.input_ids());
  ObjectiveOptions options;
  options.attention = attention;
  options.form = form;
  run_objective(ctx, model, batch, count_losses(batch), options);

  Ctx quiet = rt.ctx();
  const Value logits_TW = logits(quiet, model, constant(*seen.find("hidden.norm")));
  seen.put("logits", logits_TW);
  if (check.has(prefix + "logprobs")) seen.put("logprobs", log_probs(rt, logits_TW, batch));
  if (const Tensor* h = seen.find("mtp.hidden")) {
    const Value normed = rms_norm(quiet, constant(*h), model.weights.mtp[0].shared_head_norm,
                                  model.config.rms_norm_eps);
    seen.put("mtp.logits", logits(quiet, model, normed));
  }
  for (const SafetensorsEntry& e : check.expected().entries()) {
    if (!e.name.starts_with(prefix)) continue;
    if (const Tensor* got = seen.find(e.name.substr(prefix.size()))) {
      check.compare(e.name, *got, check.forward_limit(e.name));
    }
  }
}

// Continues the first sequences by argmax, each token from a whole forward pass.
void greedy(GoldenCheck& check, const Model& model) {
  Runtime& rt = check.runtime();
  const Tensor want = check.expected().tensor("greedy.ids");
  const int64_t n = want.view.numel(), per_seq = want.view.last();
  const std::vector<std::vector<int32_t>> prompts = check.input_ids();
  Tensor got_ids = empty(rt.arena, DType::kI64, {n}), got_logp = empty(rt.arena, DType::kF64, {n});
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) {
    if (i % per_seq == 0) ids = prompts.at(static_cast<size_t>(i / per_seq));
    Ctx ctx = rt.ctx();
    Step step;
    step.add_sequence(ids);
    step.selection = model.config.has_dsa() ? KeySelection::kSparse : KeySelection::kDense;
    const StepOut out = forward(ctx, model, step);
    const int64_t last = step.num_rows() - 1;
    const Value row = logits(ctx, model, slice(out.hidden_TD, 0, last, 1));
    int32_t best = 0;
    for (int32_t t = 1; t < model.config.vocab_size; ++t)
      if (get_element(row, t) > get_element(row, best)) best = t;
    const Tensor nll = empty(rt.arena, rt.real, {1});
    ctx.kernels.cross_entropy(ctx.exec(), {.logits = row, .target = &best, .nll = nll});
    got_ids.as<int64_t>()[i] = best;
    got_logp.as<double>()[i] = -get_element(nll, 0);
    ids.push_back(best);
  }
  check.compare("greedy.ids", got_ids, 0);
  if (check.has("greedy.logprobs"))
    check.compare("greedy.logprobs", got_logp, check.forward_limit("greedy.logprobs"));
}

// Does the folder hold values of the forward pass that the prefix names?
bool has_forward(const GoldenCheck& check, const std::string& prefix) {
  for (const char* name : {"hidden.", "attn.", "router.", "mtp."})
    if (check.has_any(prefix + name)) return true;
  return check.has(prefix + "logits") || check.has(prefix + "logprobs");
}

}  // namespace

TrainBatch golden_batch(const std::vector<std::vector<int32_t>>& ids) {
  TrainBatch b;
  b.bounds.push_back(0);
  for (const auto& row : ids) {
    for (size_t t = 0; t < row.size(); ++t) {
      const bool last = t + 1 == row.size();
      b.token.push_back(row[t]);
      b.target.push_back(last ? -1 : row[t + 1]);
      b.weight.push_back(last ? 0 : 1);
    }
    b.bounds.push_back(static_cast<int32_t>(b.token.size()));
  }
  return b;
}

// What about.json says of the constants that follow from the config.
void check_golden_constants(GoldenCheck& check) {
  const std::string path = check.folder() + "/about.json";
  if (!file_exists(path)) return;
  const Json about = Json::parse(read_file(path), path);
  const ModelConfig& c = check.config();
  const auto constant = [&](const std::string& name, double got, const Json& want) {
    check.figure(name, got, want.as_double(), 1e-12 * (1 + std::fabs(want.as_double())));
  };
  if (const Json* j = about.find("softmax_scale")) constant("softmax_scale", c.softmax_scale(), *j);
  if (const Json* j = about.find("rope_amplitude"))
    constant("rope_amplitude", c.rope_amplitude(), *j);
  if (const Json* j = about.find("inv_freq")) {
    const std::vector<double> f = rope_frequencies(c);
    for (size_t i = 0; i < j->items().size(); ++i)
      constant(fmt::format("inv_freq.{}", i), i < f.size() ? f[i] : NAN, j->items()[i]);
  }
}

void check_golden_forward(GoldenCheck& check) {
  Ctx ctx = check.runtime().ctx();
  const Model model = load_model(ctx, check.folder(), WeightUse::kServe);
  check.mark("input_ids");
  const bool sparse = model.config.has_dsa();
  if (has_forward(check, "")) run(check, model, "", sparse ? "sparse" : "dense", "absorbed");
  if (has_forward(check, "dense.")) run(check, model, "dense.", "dense", "absorbed");
  if (check.has("greedy.ids")) greedy(check, model);
}

}  // namespace fathom
