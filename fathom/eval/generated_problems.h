// Accuracy on generated problems (task/synth), answered by an engine with or without thinking.
#pragma once

#include <string>
#include <vector>

#include "fathom/infer/engine.h"
#include "fathom/task/synth/problem.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

struct ProblemAnswer {
  Problem problem;
  std::string text;  // all that the model wrote, markup included
  int64_t num_tokens = 0;
  bool correct = false, ended = false;  // ended: with the end token, not at the length limit
};

struct FamilyScore {
  std::string family;
  int64_t num_correct = 0, num_problems = 0, num_tokens = 0;
  double accuracy() const {
    return num_problems ? static_cast<double>(num_correct) / static_cast<double>(num_problems) : 0;
  }
};

struct ProblemScores {
  std::vector<ProblemAnswer> answers;  // in the order of the problems
  std::vector<FamilyScore> families;   // sorted by name
  FamilyScore all;
  double keys_share = 1;  // keys attended over keys visible, over all generated tokens
  double seconds = 0;
  const FamilyScore* find(const std::string& family) const;
};

struct ProblemEvalOptions {
  bool thinking = true;
  int64_t max_tokens = 192;
  double temperature = 0;
  int64_t index_topk = 0;  // of a sparse engine, for keys_share; 0: dense
};

// Greedy unless a temperature is given. All problems are in the engine at once and share its
// batches.
ProblemScores evaluate_problems(Engine& engine, const Tokenizer& tokenizer,
                                const std::vector<Problem>& problems,
                                const ProblemEvalOptions& options);

}  // namespace fathom
