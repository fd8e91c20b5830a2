#include "fathom/rl/rl_options.h"

#include <fmt/core.h>

#include <utility>

#include "fathom/base/error.h"
#include "fathom/train/recipe.h"

namespace fathom {

void RlOptions::fields(OptionSet& o) {
  tasks.fields(o);
  rollout.fields(o);
  reward.fields(o);
  verifiers.fields(o);
  o.add("reward_model", &reward_model,
        "folder of a model whose score joins the reward; empty: none");
  o.add("reward_model_weight", &reward_model_weight, "of that score");
  policy.fields(o);
  critic.fields(o);
  eval.fields(o);
  loop.fields(o);
}

RlOptions with_folders(RlOptions o, const std::string& run) {
  for (std::string* folder :
       {&o.reward_model, &o.critic.critic, &o.loop.reference, &o.verifiers.judge})
    *folder = path_in_run(*folder, run);
  return o;
}

bool has_programs(const RlOptions& o) {
  TaskOptions eval = o.tasks;
  if (!o.loop.eval_tasks.empty()) eval.problems = o.loop.eval_tasks;
  return TaskSource(o.tasks).has_programs() || TaskSource(eval).has_programs();
}

void check_rl_options(const RlOptions& o) {
  check_verifier_options(o.verifiers, RewardMix(o.reward));
  check_rollout_options(o.rollout);
  check_policy_options(o.policy);
  check_task_eval_options(o.eval);
  const LoopOptions& l = o.loop;
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected {} or more, found {}", name, least, value));
  };
  for (const auto& [name, value] :
       {std::pair{"prompts", l.prompts}, {"minibatches", l.minibatches}, {"epochs", l.epochs}})
    at_least(name, value, 1);
  for (const auto& [name, value] : {std::pair{"extra_groups", l.extra_groups},
                                    {"lag", l.lag},
                                    {"dynamic_rounds", l.dynamic_rounds},
                                    {"reference_every", l.reference_every},
                                    {"eval_every", l.eval_every},
                                    {"alarm_dumps", l.alarm_dumps}})
    at_least(name, value, 0);
  at_least("agreement_rollouts", l.agreement_rollouts, -1);
  if (l.rollout_bits != 0 && l.rollout_bits != 16 && (l.rollout_bits < 2 || l.rollout_bits > 8))
    throw Error(Code::kInvalidArgument,
                fmt::format("rollout_bits: expected 0, 2 to 8 or 16, found {}", l.rollout_bits));
  if (!l.reference.empty() && l.reference_every > 0)
    throw Error(Code::kInvalidArgument,
                fmt::format("reference_every: expected 0 with a reference of its own, found {}",
                            l.reference_every));
  if (o.rollout.temperature == 0)
    throw Error(Code::kInvalidArgument, "temperature: expected more than 0, found 0",
                "greedy answers of a group are all the same");
  TaskSource{o.tasks};
}

}  // namespace fathom
