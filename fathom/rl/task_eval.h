// How good a policy is at tasks: sampled accuracy, pass@k, length, thinking, language.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/rl/rollout_runner.h"
#include "fathom/task/synth/task_source.h"

namespace fathom {

struct TaskEvalOptions {
  int64_t eval_problems = 256, eval_samples = 1, eval_seed = 1;
  double eval_temperature = 1, eval_top_p = 1;

  void fields(OptionSet& o) {
    o.add("eval_problems", &eval_problems, "held-out problems");
    o.add("eval_samples", &eval_samples, "answers to each; pass@k goes up to here");
    o.add("eval_seed", &eval_seed, "of problems and answers");
    o.add("eval_temperature", &eval_temperature, "of sampling; 0: greedy");
    o.add("eval_top_p", &eval_top_p, "of sampling");
  }
};
// Throws Error that names the option.
void check_task_eval_options(const TaskEvalOptions& o);

// Means over answers.
struct TaskScore {
  std::string domain;  // empty: all
  int64_t problems = 0, answers = 0, num_language = 0;
  double accuracy = 0, reward = 0;
  double tokens = 0;     // sampled, per answer
  double thinking = 0;   // share of answers with a thought that ended
  double language = 0;   // mean language_share of answers that have one; 1: none has
  double truncated = 0;  // share cut at the limit
  double unscored = 0;   // share without a reward, as a judge or verifier failed
  // Answers that the verifier and the rubric both decide, and the share of them where they agree:
  // more than half of the rubric is met just when the answer is right.
  int64_t num_judged = 0;
  double agreement = 0;
  std::vector<double> pass_at;  // k = 1, 2, 4, ... up to the answers per problem, unbiased
};

struct PolicyUnderTest {
  const Ctx& ctx;  // without a tape
  const Model& model;
  const Tokenizer& tokenizer;
  KeySelection selection = KeySelection::kSparse;
};

// The first entry is over all tasks, then one per domain in order of name. Equal weights and
// options give equal results. Temperature and top-p are those of `options`, all other settings of
// sampling those of `rollouts`.
std::vector<TaskScore> evaluate_tasks(const PolicyUnderTest& policy, const TaskSource& tasks,
                                      const RewardMix& rewards, const RewardTools& tools,
                                      RolloutOptions rollouts, const TaskEvalOptions& options);

// P(at least one of k answers is right), of n of which c are right: 1 - C(n-c,k) / C(n,k).
double pass_at_k(int64_t n, int64_t c, int64_t k);

}  // namespace fathom
