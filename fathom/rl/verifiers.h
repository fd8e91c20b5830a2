// What scoring needs besides the answers: the sandbox for programs and the model that judges by
// rubrics, for stages of reinforcement learning and collection and for evaluations.
#pragma once

#include <memory>
#include <string>

#include "fathom/rl/judge_model.h"
#include "fathom/task/reward/reward.h"

namespace fathom {

struct VerifierOptions {
  std::string judge;  // folder of the model behind the reward rubric
  double code_time_s = 6;
  int64_t code_memory_bytes = int64_t{512} << 20;

  void fields(OptionSet& o) {
    o.add("judge", &judge, "folder of the model that judges by rubrics; empty: none");
    o.add("code_time_s", &code_time_s, "processor time of a program for a test");
    o.add("code_memory_bytes", &code_memory_bytes, "of a program");
  }
};
// Throws Error when the rewards need a judge and none is named.
void check_verifier_options(const VerifierOptions& options, const RewardMix& rewards);

// Not movable: the verifier of programs refers to the sandbox.
class Verifiers {
 public:
  // `programs`: there are some to be run; throws the error of Sandbox::probe where this machine
  // cannot isolate them. ctx (without a tape) must outlive it. Throws Error.
  Verifiers(const Ctx& ctx, const VerifierOptions& options, bool programs);
  Verifiers(const Verifiers&) = delete;
  Verifiers& operator=(const Verifiers&) = delete;

  RewardTools tools();

 private:
  std::unique_ptr<Sandbox> sandbox_;
  std::unique_ptr<CodeVerifier> code_;
  std::unique_ptr<JudgeModel> judge_;
};

}  // namespace fathom
