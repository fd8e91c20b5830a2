// fathom solve DIR: lets a model answer held-out problems and prints how well it did.
#include <fmt/core.h>

#include <string>

#include "fathom/base/json.h"
#include "fathom/cli/args.h"
#include "fathom/cli/math_worker.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/serve_model.h"
#include "fathom/rl/task_eval.h"
#include "fathom/rl/verifiers.h"

namespace fathom {
namespace {

struct SolveOptions {
  std::string folder;
  TaskOptions tasks;
  RewardOptions rewards;
  VerifierOptions verifiers;
  RolloutOptions rollouts;
  TaskEvalOptions eval;
  ServeOptions serve;
  int64_t threads = 0;
  bool dense = false, json = false;

  void fields(OptionSet& o) {
    tasks.fields(o);
    eval.fields(o);
    o.add("max_response_tokens", &rollouts.max_response_tokens, "longest answer");
    rewards.fields(o);
    verifiers.fields(o);
    o.add("dense", &dense, "attend to all tokens, also where the model has an indexer");
    o.add("threads", &threads, "threads; 0: all cores");
    serve.fields(o);
    o.add("json", &json, "one JSON object per line");
  }
};

std::string pass_text(const TaskScore& s) {
  std::string text;
  int64_t k = 1;
  for (const double p : s.pass_at) {
    text += fmt::format(" pass@{} {:.3f}", k, p);
    k *= 2;
  }
  return text;
}

Json score_json(const TaskScore& s) {
  Json pass = Json::array();
  for (const double p : s.pass_at) pass.push(Json::number(p));
  return Json::object({{"domain", Json::string(s.domain)},
                       {"problems", Json::number(s.problems)},
                       {"answers", Json::number(s.answers)},
                       {"accuracy", Json::number(s.accuracy)},
                       {"tokens", Json::number(s.tokens)},
                       {"thinking", Json::number(s.thinking)},
                       {"language", Json::number(s.language)},
                       {"truncated", Json::number(s.truncated)},
                       {"reward", Json::number(s.reward)},
                       {"unscored", Json::number(s.unscored)},
                       {"judged", Json::number(s.num_judged)},
                       {"agreement", Json::number(s.agreement)},
                       {"pass_at", std::move(pass)}});
}

void print_score(const TaskScore& s) {
  fmt::print(
      "{:<12} {} answers to {} problems: accuracy {:.3f}, {:.1f} tokens, thinking {:.3f}, "
      "language {:.3f}, cut {:.3f};{}",
      s.domain.empty() ? "all" : s.domain, s.answers, s.problems, s.accuracy, s.tokens, s.thinking,
      s.language, s.truncated, pass_text(s));
  if (s.num_judged > 0) fmt::print(" reward {:.3f}, agreement {:.3f}", s.reward, s.agreement);
  if (s.unscored > 0) fmt::print(" unscored {:.3f}", s.unscored);
  fmt::print("\n");
}

}  // namespace

int cmd_solve(Args args) {
  SolveOptions options;
  CommandLine line("solve", "let a model answer held-out problems and count what is right");
  line.positional("DIR", &options.folder, "folder of a checkpoint with a tokenizer");
  options.fields(line.options());
  line.example("fathom solve runs/demo/model --problems mod10:1-2 --eval-samples 4");
  if (!line.parse(args)) return kExitOk;
  if (options.tasks.problems.empty())
    throw UsageError("--problems: expected families or files, found nothing");
  if (options.rewards.math_worker.empty()) options.rewards.math_worker = own_math_worker();
  check_task_eval_options(options.eval);
  const TaskSource tasks(options.tasks);
  const RewardMix rewards(options.rewards);
  check_verifier_options(options.verifiers, rewards);
  Runtime runtime(Precision::kF32, options.threads);
  const Ctx ctx = runtime.ctx();
  const Model model = load_to_serve(ctx, options.folder, options.serve, {});
  const Tokenizer tokenizer = Tokenizer::load(options.folder);
  Verifiers verifiers(ctx, options.verifiers, tasks.has_programs());
  const KeySelection wanted = options.dense ? KeySelection::kDense : KeySelection::kSparse;
  const PolicyUnderTest policy{ctx, model, tokenizer, usable_selection(model.config, wanted)};
  for (const TaskScore& s :
       evaluate_tasks(policy, tasks, rewards, verifiers.tools(), options.rollouts, options.eval)) {
    if (options.json) {
      fmt::print("{}\n", score_json(s).dump());
    } else {
      print_score(s);
    }
  }
  return kExitOk;
}

}  // namespace fathom
