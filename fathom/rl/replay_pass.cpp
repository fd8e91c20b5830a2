#include "fathom/rl/replay_pass.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/infer/engine.h"
#include "fathom/infer/paged_cache.h"
#include "fathom/ops/basic.h"

namespace fathom {
namespace {

// Rows of the model: the last token predicts nothing that is trained.
int64_t num_rows(const Rollout& r) { return static_cast<int64_t>(r.tokens.size()) - 1; }

[[noreturn]] void refuse(const Rollout& r, const std::string& what) {
  throw Error(Code::kDataLoss, fmt::format("rollout {} of group {}: {}", r.index, r.group, what),
              "does the record belong to this model?");
}

std::span<const int32_t> recorded_support(const Rollout& r, size_t t) {
  const auto begin = static_cast<size_t>(r.support.offset[t]);
  return std::span(r.support.id)
      .subspan(begin, static_cast<size_t>(r.support.offset[t + 1]) - begin);
}

void add_token(const Rollout& r, size_t t, bool keep_sampling_mask, HeadTargets* targets) {
  const int32_t token = r.tokens[static_cast<size_t>(r.prompt_len) + t];
  const auto support = recorded_support(r, t);
  if (!support.empty() && !std::binary_search(support.begin(), support.end(), token))
    refuse(r, fmt::format("expected token {} inside its support of {} ids", token, support.size()));
  targets->token.push_back(token);
  // A greedy token is the only one in its support; its log-prob is 0 at any temperature.
  targets->temperature.push_back(r.sampling.temperature > 0 ? r.sampling.temperature : 1);
  if (keep_sampling_mask) targets->id.insert(targets->id.end(), support.begin(), support.end());
  targets->offset.push_back(static_cast<int64_t>(targets->id.size()));
}

bool all_different(const int32_t* expert, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j)
      if (expert[i] == expert[j]) return false;
  return true;
}

// Row `row` of the record, expert layer l.
std::span<const uint16_t> recorded_experts(const Rollout& r, int64_t row, size_t l) {
  const auto A = static_cast<size_t>(r.experts.num_experts_per_tok);
  return std::span(r.experts.expert)
      .subspan((static_cast<size_t>(row) * r.experts.layers.size() + l) * A, A);
}

void check_experts(const Rollout& r, const ModelConfig& c) {
  if (r.experts.num_experts_per_tok == c.num_experts_per_tok && r.experts.layers == moe_layers(c))
    return;
  refuse(r, fmt::format("expected {} experts a token in {} layers, found {} in {}",
                        c.num_experts_per_tok, moe_layers(c).size(), r.experts.num_experts_per_tok,
                        r.experts.layers.size()));
}

void force_experts(Ctx& ctx, const ModelConfig& c, ReplayPass* p) {
  const std::vector<int64_t> layers = moe_layers(c);
  if (layers.empty()) return;
  const int64_t A = c.num_experts_per_tok;
  p->step.forced_experts.resize(static_cast<size_t>(c.num_hidden_layers));
  for (const Rollout* r : p->rollouts) check_experts(*r, c);
  for (size_t l = 0; l < layers.size(); ++l) {
    const Tensor forced_TA = ctx.scratch(DType::kI32, {p->step.num_rows(), A});
    int32_t* to = forced_TA.as<int32_t>();
    for (const Rollout* r : p->rollouts)
      for (int64_t row = 0; row < num_rows(*r); ++row, to += A) {
        const auto from = recorded_experts(*r, row, l);
        std::copy(from.begin(), from.end(), to);
        if (*std::max_element(to, to + A) >= c.n_routed_experts || !all_different(to, A))
          refuse(*r, fmt::format("expected {} different experts below {} for token {} in layer {}",
                                 A, c.n_routed_experts, row, layers[l]));
      }
    p->step.forced_experts[static_cast<size_t>(layers[l])] = forced_TA;
    p->forced.push_back(forced_TA);
  }
}

// Of the layer's own decisions, how many equal the record's as sets.
void compare_routing(const ReplayPass& p, const Routing& routing, size_t l, ReplayFigures* f) {
  const Tensor& own_TA = routing.own_TA ? routing.own_TA : routing.experts_TA;
  const auto A = static_cast<size_t>(own_TA.view.dim[1]);
  const int32_t* at = own_TA.as<int32_t>();
  for (const Rollout* r : p.rollouts) {
    const bool recorded =
        r->experts.num_experts_per_tok == static_cast<int64_t>(A) && l < r->experts.layers.size();
    for (int64_t row = 0; row < num_rows(*r); ++row, at += A) {
      if (!recorded) continue;
      const auto want = recorded_experts(*r, row, l);
      ++f->routing_total;
      f->routing_equal += std::is_permutation(want.begin(), want.end(), at, at + A);
    }
  }
}

// Of the keys that the layer's indexer selected, how many rows equal the record's.
void compare_selection(const ReplayPass& p, const Tensor& sel_TK, int64_t layer, ReplayFigures* f) {
  const auto K = static_cast<size_t>(sel_TK.view.dim[1]);
  const int32_t* at = sel_TK.as<int32_t>();
  for (const Rollout* r : p.rollouts) {
    const std::vector<int64_t>& layers = r->selection.layers;
    const auto l = static_cast<size_t>(std::ranges::find(layers, layer) - layers.begin());
    for (size_t row = 0; row < static_cast<size_t>(num_rows(*r)); ++row, at += K) {
      if (l == layers.size()) continue;
      ++f->selection_total;
      f->selection_equal +=
          r->selection.fingerprint[row * layers.size() + l] == selection_fingerprint({at, K});
    }
  }
}

}  // namespace

size_t pass_size(std::span<const Rollout* const> rollouts, size_t first, int64_t rows_per_pass) {
  int64_t rows = 0;
  size_t n = 0;
  while (first + n < rollouts.size()) {
    rows += num_rows(*rollouts[first + n]);
    if (n > 0 && rows > rows_per_pass) break;
    ++n;
  }
  return n;
}

ReplayPass make_replay_pass(Ctx& ctx, const Model& model, std::span<const Rollout* const> rollouts,
                            const ReplayOptions& options) {
  ReplayPass p{.rollouts = rollouts};
  p.step.selection = usable_selection(model.config, options.selection);
  for (size_t i = 0; i < rollouts.size(); ++i) {
    const Rollout& r = *rollouts[i];
    check_rollout(r);
    for (const int32_t t : r.tokens)
      if (t < 0 || t >= model.config.vocab_size)
        refuse(r, fmt::format("expected tokens below {}, found {}", model.config.vocab_size, t));
    const auto first = static_cast<int32_t>(p.step.num_rows() + r.prompt_len - 1);
    p.step.add_sequence({r.tokens.begin(), r.tokens.end() - 1});
    for (size_t t = 0; t < r.sampled.size(); ++t) {
      if (!r.sampled[t]) continue;
      p.row.push_back(first + static_cast<int32_t>(t));
      p.tokens.push_back({i, t});
      add_token(r, t, options.keep_sampling_mask, &p.targets);
    }
  }
  if (options.keep_routing) force_experts(ctx, model.config, &p);
  return p;
}

ReplayedPass run_replay_pass(Ctx& ctx, const Model& model, const ReplayPass& pass, bool measure) {
  ReplayedPass run{.out = forward(ctx, model, pass.step)};
  run.rows_TD =
      select_rows(ctx, run.out.hidden_TD, pass.row.data(), static_cast<int64_t>(pass.row.size()));
  run.head = head_logp(ctx, run.rows_TD, model.weights.lm_head, pass.targets, measure);
  return run;
}

ReplayFigures replay_figures(const ReplayPass& pass, const ReplayedPass& run) {
  ReplayFigures f;
  f.num_tok = static_cast<int64_t>(pass.tokens.size());
  for (size_t k = 0; k < pass.tokens.size(); ++k) {
    const auto [rollout, position] = pass.tokens[k];
    const Rollout& r = *pass.rollouts[rollout];
    const double x = run.head.logp[k] - static_cast<double>(r.behaviour_logp[position]);
    f.max_mismatch = std::max(f.max_mismatch, std::fabs(x));
    f.sum_mismatch_k3 += std::expm1(x) - x;
    f.num_singleton += recorded_support(r, position).size() == 1;
  }
  for (const SupportFigures& s : run.head.figures) {
    f.entropy += s.entropy;
    f.kept_mass += s.kept_mass;
  }
  size_t expert_layers = 0;
  for (size_t l = 0; l < run.out.layers.size(); ++l) {
    const LayerOut& layer = run.out.layers[l];
    if (layer.routing) compare_routing(pass, *layer.routing, expert_layers++, &f);
    if (layer.sel_TK) compare_selection(pass, layer.sel_TK, static_cast<int64_t>(l), &f);
  }
  return f;
}

}  // namespace fathom
