// fathom stabilisers MODEL: tables of what each stabiliser of reinforcement learning controls.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/cli/args.h"
#include "fathom/cli/math_worker.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/stabiliser_figures.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/rl/policy_loss.h"
#include "fathom/rl/weight_copy.h"

namespace fathom {
namespace {

struct StabiliserOptions {
  std::string model, policy, reference;
  RlOptions stage;
  int64_t threads = 0;

  void fields(OptionSet& o) {
    o.add("policy", &policy, "folder of a later policy, for sequence KL and gradients of the KL");
    o.add("reference", &reference, "folder of the reference; empty: MODEL");
    stage.tasks.fields(o);
    o.add("prompts", &stage.loop.prompts, "groups of answers to measure on");
    o.add("group_size", &stage.rollout.group_size, "answers to each prompt");
    o.add("max_response_tokens", &stage.rollout.max_response_tokens, "longest answer");
    o.add("seed", &stage.loop.seed, "of tasks and sampling");
    o.add("threads", &threads, "threads; 0: all cores");
  }
};

void print_mask(const StabiliserProbe& probe, const Model& model) {
  fmt::print(
      "sampling mask: pi / mu at the weights that sampled\n"
      "  top-p  with mask: mean, largest |r - 1|   without: mean   kept mass   singletons\n");
  for (const double top_p : {1.0, 0.98, 0.95, 0.9, 0.8, 0.5}) {
    const MaskFigures f = measure_mask(probe, model, top_p);
    fmt::print("  {:<5}  {:.6f}         {:<9.3g}          {:.4f}          {:.4f}      {:.3f}\n",
               f.top_p, f.mean_ratio_with, f.worst_ratio_with, f.mean_ratio_without, f.kept_mass,
               f.singleton_share);
  }
}

void print_routing(const StabiliserProbe& probe, const Model& model) {
  fmt::print(
      "\nkept routing: rollouts of weights rounded to so many bits, the trainer's in f32\n"
      "  bits  decisions equal: free, kept   k3 without, with      largest |dlogp| without, "
      "with\n");
  for (const int64_t bits : {0, 8, 6, 5, 4}) {
    const RoutingFigures f = measure_routing(probe, model, bits);
    fmt::print("  {:<4}  {:.4f}  {:.4f}              {:<9.3g} {:<9.3g}   {:.4f}  {:.4f}\n",
               bits == 0 ? "f32" : fmt::format("{}", bits), 1 - f.differing, f.agreement_with,
               f.kl_without, f.kl_with, f.largest_without, f.largest_with);
  }
}

void print_kl(const StabiliserProbe& probe, const Model& behaviour, const Model& policy,
              const Model& reference) {
  fmt::print(
      "\nKL to the reference: expected gradient by the logits, against that of KL(pi, ref)\n"
      "  {:<38} samples     relative error   cosine\n",
      "estimator");
  for (const KlGradient& g : measure_kl_gradients(probe, behaviour, policy, reference))
    fmt::print("  {:<38} {:<10}  {:<14.3g}   {:.6f}\n", g.estimator, g.samples, g.relative_error,
               g.cosine);
}

// Shares of answers by stretches of D, and what a delta masks.
void print_divergences(const SequenceDivergences& d) {
  constexpr double kEdges[] = {-HUGE_VAL, 0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, HUGE_VAL};
  const auto share = [](const std::vector<double>& values, double low, double high) {
    const auto n = std::ranges::count_if(values, [&](double v) { return v > low && v <= high; });
    return values.empty() ? 0.0 : static_cast<double>(n) / static_cast<double>(values.size());
  };
  fmt::print(
      "\nsequence KL: D = mean log(mu / pi) of an answer; the mask takes out those with A < 0 and "
      "D > delta\n  {} answers with A < 0, {} others\n  D above     to          A < 0   others   "
      "masked of all, delta here\n",
      d.negative.size(), d.other.size());
  const auto all = static_cast<double>(d.negative.size() + d.other.size());
  for (size_t i = 0; i + 1 < std::size(kEdges); ++i)
    fmt::print("  {:<10}  {:<10}  {:.3f}   {:.3f}    {:.3f}\n", kEdges[i], kEdges[i + 1],
               share(d.negative, kEdges[i], kEdges[i + 1]),
               share(d.other, kEdges[i], kEdges[i + 1]),
               share(d.negative, kEdges[i + 1], HUGE_VAL) * static_cast<double>(d.negative.size()) /
                   std::max(all, 1.0));
}

}  // namespace

int cmd_stabilisers(Args args) {
  StabiliserOptions o;
  o.stage.loop.prompts = 24;
  CommandLine line("stabilisers", "show what the stabilisers of reinforcement learning control");
  line.positional("MODEL", &o.model, "folder of a checkpoint with a tokenizer; it samples");
  o.fields(line.options());
  line.example(
      "fathom stabilisers runs/r1_zero/models/base --policy runs/r1_zero/models/zero --problems "
      "mod10:1-2 --choose-mode");
  if (!line.parse(args)) return kExitOk;
  if (o.stage.tasks.problems.empty())
    throw UsageError("--problems: expected families or files, found nothing");
  o.stage.reward.math_worker = own_math_worker();
  check_rl_options(o.stage);
  Runtime runtime(Precision::kF32, o.threads);
  const Ctx ctx = runtime.ctx();
  const Tokenizer tokenizer = Tokenizer::load(o.model);
  const Model model = load_model(ctx, o.model, WeightUse::kTrain);
  const StabiliserProbe probe{ctx, tokenizer, o.stage};
  print_mask(probe, model);
  if (model.config.n_routed_experts > 0) print_routing(probe, model);
  if (o.policy.empty()) return kExitOk;
  const auto load = [&](const std::string& folder) {
    Model other = load_model(ctx, folder, WeightUse::kTrain);
    check_vocabulary(other, model, folder);
    return other;
  };
  const Model policy = load(o.policy);
  if (o.reference.empty())
    print_kl(probe, model, policy, model);
  else
    print_kl(probe, model, policy, load(o.reference));
  print_divergences(measure_divergences(probe, model, policy));
  return kExitOk;
}

}  // namespace fathom
