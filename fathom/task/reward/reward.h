// Rewards of the answers to one prompt: a table of functions, and their weighted sum per domain.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/task/completer.h"
#include "fathom/task/reward/model_answer.h"
#include "fathom/task/reward/rubric.h"
#include "fathom/task/rollout.h"
#include "fathom/task/synth/problem.h"
#include "fathom/task/verify/code.h"

namespace fathom {

class MathChecker;

// The domain of problems without a family whose answers are compared as mathematics.
inline constexpr std::string_view kMathDomain = "math";

struct RewardOptions {
  std::vector<std::string> rewards = {"outcome"};
  std::vector<std::string> reward_gates;
  bool answer_tags = false;
  std::vector<std::string> math_worker;
  int64_t math_deadline_ms = 5000;
  std::string language = "auto";
  int64_t soft_overlong_tokens = 0;
  int64_t judge_votes = 1, judge_tries = 3, judge_max_tokens = 1024;
  double judge_timeout_s = 60;

  void fields(OptionSet& o) {
    o.add("rewards", &rewards,
          "[DOMAIN:]NAME[*WEIGHT], ...; the reward is their weighted sum; *0: only measured");
    o.add("reward_gates", &reward_gates,
          "rewards that must be 1; else everything that is positive counts 0");
    o.add("answer_tags", &answer_tags, "the answer stands in <answer> and </answer>");
    o.add("math_worker", &math_worker,
          "program and arguments of the process that checks mathematical answers; none: this one");
    o.add("math_deadline_ms", &math_deadline_ms, "of one check; then that process is killed");
    o.add("language", &language,
          "scripts that the language reward expects, as latin or han+kana; auto: the prompt's; "
          "digits: 0-9 against the digits of other scripts");
    o.add("soft_overlong_tokens", &soft_overlong_tokens,
          "before the limit, over which the soft_overlong reward falls from 0 to -1");
    o.add("judge_votes", &judge_votes, "verdicts per answer; an item is met when most say so");
    o.add("judge_tries", &judge_tries, "calls per verdict before the reward is missing");
    o.add("judge_max_tokens", &judge_max_tokens, "of a verdict");
    o.add("judge_timeout_s", &judge_timeout_s, "for all verdicts on one group, in seconds");
  }
};

// The answers to one prompt and what is known about it.
struct AnswerGroup {
  Problem problem;     // verified when it has an answer (task/verify)
  std::string domain;  // "math"; picks the weights
  // Where answers are programs: what they are tested with, instead of problem.answer.
  std::shared_ptr<const CodeProblem> code = nullptr;
  std::vector<RubricItem> rubric;  // may be empty
  int64_t max_tokens = 0;          // of an answer; 0: no limit
  uint64_t seed = 0;               // of what is random in judging
  std::vector<ModelAnswer> answers;
  std::vector<std::optional<bool>> right;  // per answer; filled by RewardMix; empty: not verifiable
};

// Of the letters (with "digits": the digits) of thinking and content, the share in the scripts of
// RewardOptions::language; nothing when there are none. `prompt` tells what "auto" means. Latin
// names in a text of an East Asian script do not count; a Japanese text has kana, without them it
// is Chinese.
std::optional<double> language_share(const ModelAnswer& answer, const std::string& language,
                                     const std::string& prompt);

// What rewards may use besides the answers.
struct RewardTools {
  Completer* judge = nullptr;
  CodeVerifier* code = nullptr;  // none: it cannot be told whether programs are right
  std::stop_token cancel = {};
};

// Of one answer. No value: it could not be told, `note` says why. Values lie in [-1, 1].
struct RewardValue {
  std::optional<double> value;
  std::string note = {};
};

// One value per answer. Never throws for what an answer or a judge says; malformed answers get the
// lowest value that the reward has.
using RewardFunction = std::vector<RewardValue> (*)(const AnswerGroup& group,
                                                    const RewardOptions& options,
                                                    const RewardTools& tools);
struct RewardEntry {
  std::string_view name;
  RewardFunction score;
  std::string_view doc;
  bool judged = false;  // asks the judge
};
std::span<const RewardEntry> reward_entries();          // sorted by name
const RewardEntry& find_reward(std::string_view name);  // throws Error that names the nearest

// What a group's answer earned.
struct RewardSheet {
  std::vector<RewardPart> parts;  // those that have a value, also with weight 0
  double reward = 0;              // sum of weight * value
  bool complete = true;           // false: a part with weight is missing, the reward says nothing
  std::optional<bool> right;
  std::string verdict;  // one line for a reader: what is missing, and the notes
};

class RewardMix {
 public:
  // Throws Error for unknown names, weights that are not numbers, options out of range.
  explicit RewardMix(const RewardOptions& options);

  std::vector<RewardSheet> score(AnswerGroup group, const RewardTools& tools) const;
  bool needs_judge() const;  // in some domain
  const RewardOptions& options() const { return options_; }

 private:
  struct Part {
    const RewardEntry* entry;
    std::string domain;  // empty: all that do not name it themselves
    double weight;
  };
  std::vector<Part> parts_of(const std::string& domain) const;

  RewardOptions options_;
  std::shared_ptr<MathChecker> math_;  // null: checks in this process
  std::vector<Part> parts_;
  std::vector<const RewardEntry*> gates_;
};

// Scores rollouts of one prompt and writes rewards, reward and verdict into them. One whose reward
// is not complete gets StopReason::kUnscored. Returns, per rollout, whether the answer is right
// where that can be told.
std::vector<std::optional<bool>> score_rollouts(std::span<Rollout> rollouts, AnswerGroup group,
                                                const Tokenizer& tokenizer, const RewardMix& mix,
                                                const RewardTools& tools);

}  // namespace fathom
