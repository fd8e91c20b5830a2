#include "fathom/rl/task_eval.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "fathom/base/error.h"
#include "fathom/infer/session.h"

namespace fathom {
namespace {

// Sums; divided at the end.
void add_answer(TaskScore& s, const ModelAnswer& a, const RewardSheet& sheet,
                std::optional<double> language) {
  ++s.answers;
  s.accuracy += sheet.right.value_or(false);
  s.reward += sheet.reward;
  s.tokens += static_cast<double>(a.num_tokens);
  s.thinking += a.form == AnswerForm::kThought;
  s.truncated += a.stop == StopReason::kLength;
  s.language += language.value_or(0);
  s.num_language += language.has_value();
  s.unscored += !sheet.complete;
  const auto rubric = std::ranges::find(sheet.parts, "rubric", &RewardPart::name);
  if (rubric == sheet.parts.end() || !sheet.right) return;
  ++s.num_judged;
  s.agreement += (rubric->value > 0.5) == *sheet.right;
}

void add_problem(TaskScore& s, int64_t n, int64_t right) {
  ++s.problems;
  size_t i = 0;
  for (int64_t k = 1; k <= n; k *= 2, ++i) {
    if (s.pass_at.size() <= i) s.pass_at.push_back(0);
    s.pass_at[i] += pass_at_k(n, right, k);
  }
}

TaskScore means(TaskScore s) {
  const double n = static_cast<double>(std::max<int64_t>(s.answers, 1));
  for (double* x : {&s.accuracy, &s.reward, &s.tokens, &s.thinking, &s.truncated, &s.unscored})
    *x /= n;
  s.language = s.num_language > 0 ? s.language / static_cast<double>(s.num_language) : 1;
  s.agreement /= static_cast<double>(std::max<int64_t>(s.num_judged, 1));
  for (double& p : s.pass_at) p /= static_cast<double>(std::max<int64_t>(s.problems, 1));
  return s;
}

}  // namespace

void check_task_eval_options(const TaskEvalOptions& o) {
  const auto need = [](const char* name, bool ok, double value) {
    if (!ok)
      throw Error(Code::kInvalidArgument, fmt::format("{}: {} is out of range", name, value));
  };
  need("eval_problems", o.eval_problems >= 1, static_cast<double>(o.eval_problems));
  need("eval_samples", o.eval_samples >= 1, static_cast<double>(o.eval_samples));
  need("eval_temperature", o.eval_temperature >= 0, o.eval_temperature);
  need("eval_top_p", o.eval_top_p > 0 && o.eval_top_p <= 1, o.eval_top_p);
}

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  FM_CHECK(k >= 1 && k <= n && c >= 0 && c <= n, "{} of {} right, k {}", c, n, k);
  double none = 1;
  for (int64_t i = 0; i < k; ++i)
    none *= static_cast<double>(std::max<int64_t>(n - c - i, 0)) / static_cast<double>(n - i);
  return 1 - none;
}

std::vector<TaskScore> evaluate_tasks(const PolicyUnderTest& policy, const TaskSource& tasks,
                                      const RewardMix& rewards, const RewardTools& tools,
                                      RolloutOptions rollouts, const TaskEvalOptions& options) {
  check_task_eval_options(options);
  const auto seed = static_cast<uint64_t>(options.eval_seed);
  rollouts.group_size = options.eval_samples;
  rollouts.temperature = options.eval_temperature;
  rollouts.top_p = options.eval_top_p;
  RolloutRunner runner(policy.ctx, policy.model, rollouts, policy.selection,
                       end_tokens(policy.model.config, policy.tokenizer), seed);
  std::vector<Task> asked;
  for (int64_t i = 0; i < options.eval_problems; ++i) {
    asked.push_back(tasks.draw(seed, static_cast<uint64_t>(i), Split::kHeldOut));
    runner.add({.group = i,
                .domain = asked.back().domain,
                .problem = asked.back().problem.prompt,
                .tokens = task_prompt(policy.tokenizer, asked.back())});
  }
  TaskScore all;
  std::map<std::string, TaskScore> domains;
  for (std::vector<Rollout>& group : runner.collect(options.eval_problems)) {
    const Task& task = asked[static_cast<size_t>(group[0].group)];
    AnswerGroup answers = task.group(rollouts.max_response_tokens, seed);
    for (const Rollout& r : group) answers.answers.push_back(read_answer(policy.tokenizer, r));
    const std::vector<RewardSheet> sheets = rewards.score(answers, tools);
    TaskScore& domain = domains[task.domain];
    domain.domain = task.domain;
    int64_t num_right = 0;
    for (size_t i = 0; i < group.size(); ++i) {
      const ModelAnswer& a = answers.answers[i];
      const auto language = language_share(a, rewards.options().language, task.problem.prompt);
      num_right += sheets[i].right.value_or(false);
      for (TaskScore* s : {&all, &domain}) add_answer(*s, a, sheets[i], language);
    }
    for (TaskScore* s : {&all, &domain})
      add_problem(*s, static_cast<int64_t>(group.size()), num_right);
  }
  std::vector<TaskScore> scores = {means(std::move(all))};
  for (auto& [name, score] : domains) scores.push_back(means(std::move(score)));
  return scores;
}

}  // namespace fathom
