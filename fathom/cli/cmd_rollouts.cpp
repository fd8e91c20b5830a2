// fathom rollouts RUN: what a stage of reinforcement learning sampled, to read and to recompute.
#include <fmt/core.h>

#include <algorithm>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/rollout_text.h"
#include "fathom/cli/runtime.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/rl/rl_update.h"
#include "fathom/rl/rollout_source.h"
#include "fathom/rl/rollout_store.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

struct RolloutsOptions {
  std::string run, weights;
  int64_t step = 0, group = -1, most = 20, threads = 0;
  bool ids = false, replay = false;

  void fields(OptionSet& o) {
    o.add("step", &step, "whose rollouts are printed; 0: a list of the steps");
    o.add("group", &group, "only this one");
    o.add("most", &most, "answers to print; 0: all");
    o.add("ids", &ids, "tokens as numbers");
    o.add("replay", &replay,
          "compute the step again from its records: agreement, ratios, objective, gradient");
    o.add("weights", &weights,
          "folder of the model to replay with; by default the step's own, if an alarm or a "
          "checkpoint kept it");
    o.add("threads", &threads, "threads of a replay; 0: all cores");
  }
};

// Control characters would move the cursor; line ends stay.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') c = '?';
  return text;
}

void print_step(const RolloutStore& store, const RolloutsOptions& o) {
  std::vector<Rollout> rollouts = store.read_step(o.step);
  if (rollouts.empty())
    throw Error(Code::kNotFound,
                fmt::format("{}: expected rollouts of step {}, found none", o.run, o.step),
                "without --step the steps are listed");
  fmt::print("{}\n", totals_line(o.step, rollout_totals(rollouts)));
  if (o.group >= 0) std::erase_if(rollouts, [&](const Rollout& r) { return r.group != o.group; });
  const std::optional<Tokenizer> tokenizer = o.ids ? std::nullopt : run_tokenizer_if_any(o.run);
  int64_t last_group = -1, printed = 0;
  for (const Rollout& r : rollouts) {
    if (o.most > 0 && printed++ == o.most) {
      fmt::print("\n{} more; --most 0 prints all\n", std::ssize(rollouts) - o.most);
      break;
    }
    if (r.group != last_group)
      fmt::print("\n== {}: {}\n", r.domain, printable(token_text(r, 0, r.prompt_len, tokenizer)));
    last_group = r.group;
    fmt::print("-- {}\n{}\n", printable(rollout_heading(r)),
               printable(token_text(r, r.prompt_len, std::ssize(r.tokens), tokenizer)));
  }
}

void print_steps(const RolloutStore& store) {
  for (const int64_t step : store.steps()) {
    const std::vector<RolloutEntry> entries = store.entries(step);
    double reward = 0, tokens = 0;
    int64_t cut = 0;
    for (const RolloutEntry& e : entries) {
      reward += e.reward;
      tokens += static_cast<double>(e.response_len);
      cut += e.stop != StopReason::kEnd;
    }
    const auto n = static_cast<double>(entries.size());
    fmt::print("step {}: {} answers, reward {:.3f}, {:.1f} tokens, {} did not end by themselves\n",
               step, entries.size(), reward / n, tokens / n, cut);
  }
}

// The weights before a step's update, where the run still has them.
std::string weights_of(const RolloutsOptions& o) {
  if (!o.weights.empty()) return o.weights;
  const std::string of_alarm = alarm_folder(o.run, o.step);
  if (folder_exists(of_alarm)) return of_alarm;
  const std::string checkpoint = fmt::format("{}/checkpoints/step_{:08}/model", o.run, o.step - 1);
  if (folder_exists(checkpoint)) return checkpoint;
  throw Error(Code::kNotFound,
              fmt::format("{}: expected the weights before step {}, found neither an alarm's nor "
                          "a checkpoint's",
                          o.run, o.step),
              "name a model with --weights, or keep more checkpoints");
}

// What the run was told about the stage that a step belongs to.
RlOptions options_of(const RunData& run, int64_t step) {
  std::string stage;
  for (const RunText& t : run.texts)
    if (t.kind == "stage" && t.step < step) stage = t.text;
  RlOptions options;
  OptionSet set;
  options.fields(set);
  for (const auto& [key, value] : run.config)
    if (key.starts_with(stage + "."))
      if (const std::string name = key.substr(stage.size() + 1); set.find(name))
        set.set(name, value);
  return options;
}

std::string recorded(const RunData& run, const std::string& name, int64_t step) {
  for (const RunSeries& s : run.series)
    if (s.name == name)
      for (size_t i = 0; i < s.step.size(); ++i)
        if (s.step[i] == step) return fmt::format("{:.6g}", s.value[i]);
  return "-";
}

void print_replay(const PreparedStep& p, const PolicyReport& report) {
  fmt::print("\n  group answer  right  reward  advantage  tokens  mean ratio  divergence\n");
  for (size_t i = 0; i < p.samples.size(); ++i) {
    const Rollout& r = *p.rollouts[i];
    double ratio = 0;
    for (const double x : report.terms[i].ratio)
      ratio += x / static_cast<double>(report.terms[i].ratio.size());
    fmt::print("{:>7}{:>7}{:>7}{:>8.3f}{:>11.4f}{:>8}{:>12.6f}{:>12.6f}{}\n", r.group, r.index,
               answer_right(r), r.reward, p.samples[i].advantage, r.num_sampled(), ratio,
               report.terms[i].divergence, report.terms[i].masked ? "  masked" : "");
  }
}

void replay(const RolloutStore& store, const RolloutsOptions& o) {
  const std::vector<Rollout> rollouts = store.read_step(o.step);
  const std::string folder = weights_of(o);
  const RunData run = load_run(o.run);
  RlOptions options = options_of(run, o.step);
  Runtime runtime(Precision::kF32, o.threads);
  const Ctx ctx = runtime.ctx();
  const Model model = load_model(ctx, folder, WeightUse::kTrain);
  set_trainable(model, "policy");
  if (uses_reference(options)) {
    fmt::print("without the KL to the reference, which checkpoints alone keep\n");
    options.policy.kl = "none";
  }
  if (uses_critic(options)) {
    fmt::print("without the critic, which checkpoints alone keep: rewards less the group's mean\n");
    options.policy.advantage = "mean";
  }
  constexpr int64_t kRows = 4096;
  const PreparedStep p = prepare_step(ctx, model, nullptr, rollouts, options, o.step - 1, kRows);
  const auto alone = make_single_comm();
  SharedGradient gradient(ctx, *alone, model.weights.params);
  const PolicyReport report =
      run_minibatch(ctx, model, p.samples, p.opsm_delta, options, kRows, gradient);
  const double norm = Optimizer(ctx, model.weights.params, {}).grad_norm(ctx);
  const Agreement& a = p.agreement;
  fmt::print(
      "step {} with {}, as one mini-batch of {} answers\n"
      "  mismatch KL {:.4g}, log-probs equal {:.4f}, routing {:.6f}, selection {:.6f}, supports "
      "{:.6f}{}\n"
      "  objective {:.6g} (the run's loss {}), gradient norm {:.6g} (the run's {})\n"
      "  ratio {:.6f} to {:.6f}, entropy {:.4f} of a token, sequences masked {:.3f}\n",
      o.step, folder, p.samples.size(), a.mismatch_kl(), a.logp_agreement(), a.routing_agreement(),
      a.selection_agreement(), a.support_agreement(), a.exact() ? ": equal to the last bit" : "",
      report.objective, recorded(run, "loss/total", o.step), norm,
      recorded(run, "optimizer/grad_norm", o.step), report.min_ratio, report.max_ratio,
      report.replay.mean_entropy(), report.masked_share());
  print_replay(p, report);
}

}  // namespace

int cmd_rollouts(Args args) {
  RolloutsOptions options;
  CommandLine line("rollouts",
                   "read the answers that reinforcement learning sampled, or replay them");
  line.positional("RUN", &options.run, "run folder with a stage of reinforcement learning");
  options.fields(line.options());
  line.example("fathom rollouts runs/demo --step 40 --most 4");
  line.example("fathom rollouts runs/demo --step 40 --replay");
  if (!line.parse(args)) return kExitOk;
  if (options.replay && options.step == 0)
    throw UsageError("--replay: expected a --step, found none");
  const RolloutStore store(options.run, RolloutStore::Mode::kRead);
  if (options.step == 0)
    print_steps(store);
  else if (options.replay)
    replay(store, options);
  else
    print_step(store, options);
  return kExitOk;
}

}  // namespace fathom
