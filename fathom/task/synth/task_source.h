// What reinforcement learning asks the policy: generated problems, or problems from a file, each
// with its domain, the way its turn begins, and a rubric where it has one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/task/reward/reward.h"
#include "fathom/task/synth/mix.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

struct TaskOptions {
  std::vector<std::string> problems;
  double thinking_share = 1;
  bool choose_mode = false;

  void fields(OptionSet& o) {
    o.add("problems", &problems,
          "NAME[:LOW-HIGH][*WEIGHT] of families, FILE.jsonl[*WEIGHT] of problems, ...");
    o.add("thinking_share", &thinking_share, "share of the prompts that ask for thinking");
    o.add("choose_mode", &choose_mode,
          "prompts end before <think> or </think>, so that the policy chooses");
  }
};

struct Task {
  Problem problem;
  std::string domain;  // of the family; a file's line may name its own
  TurnStart start = TurnStart::kThinking;
  std::vector<RubricItem> rubric;
  std::shared_ptr<const CodeProblem> code = nullptr;  // where the answer is a program
  // The group that rewards see, without answers.
  AnswerGroup group(int64_t max_tokens, uint64_t seed) const;
};

// One user turn in the V3.2 format, up to and including the tag that `start` stands for (none with
// kChoice). Throws Error when the tokenizer lacks the tokens.
std::vector<int32_t> task_prompt(const Tokenizer& tokenizer, const Task& task);

class TaskSource {
 public:
  // Throws Error for unknown families, files that cannot be read, weights, shares out of range.
  explicit TaskSource(const TaskOptions& options);

  // Task `index` of the stream `seed`; always the same. Generated ones come from `split`; a file is
  // taken as it is.
  Task draw(uint64_t seed, uint64_t index, Split split) const;
  bool has_programs() const;  // among its tasks, whose answers have to be run

 private:
  struct Part {
    double weight = 1;
    std::vector<Task> tasks;  // of a file
    ProblemMix mix;           // else
  };
  double thinking_share_;
  bool choose_mode_;
  double total_weight_ = 0;
  std::vector<Part> parts_;
};

// {"family", "difficulty", "prompt", "thinking", "answer"} as `fathom data corpus` writes held-out
// problems, where all but the prompt may be absent; also "domain", "rubric" (task/reward/rubric.h)
// and "code": {"language", "tests": [{"input", "expected"}], "checker"}. Throws Error that names
// file and line.
std::vector<Task> read_tasks(const std::string& path);

}  // namespace fathom
