#include "fathom/rl/verifiers.h"

namespace fathom {

void check_verifier_options(const VerifierOptions& options, const RewardMix& rewards) {
  if (rewards.needs_judge() && options.judge.empty())
    throw Error(Code::kInvalidArgument, "judge: expected a model for the reward rubric, found none",
                "name its folder");
}

Verifiers::Verifiers(const Ctx& ctx, const VerifierOptions& options, bool programs) {
  if (programs) {
    CodeOptions code;
    code.time_s = options.code_time_s;
    code.memory_bytes = options.code_memory_bytes;
    sandbox_ = std::make_unique<Sandbox>();
    code_ = std::make_unique<CodeVerifier>(*sandbox_, code);
  }
  if (!options.judge.empty()) judge_ = std::make_unique<JudgeModel>(ctx, options.judge);
}

RewardTools Verifiers::tools() {
  return {.judge = judge_ ? &judge_->completer() : nullptr, .code = code_.get()};
}

}  // namespace fathom
