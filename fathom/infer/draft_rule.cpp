#include "fathom/infer/draft_rule.h"

#include <algorithm>
#include <utility>

namespace fathom {

double DraftRule::Rate::per_s() const {
  std::vector<double> sorted = seconds;
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  return tokens / static_cast<double>(sorted.size()) / *middle;
}

void DraftRule::count(bool guessed, int64_t num_sequences, int64_t num_tokens, double seconds) {
  if (over_) return;
  const auto n = static_cast<double>(num_sequences);
  Rate& rate = guessed ? guessed_ : plain_;
  rate.seconds.push_back(seconds / n);
  rate.tokens += static_cast<double>(num_tokens) / n;
  if (phase_ == Phase::kGuessing && std::ssize(guessed_.seconds) >= length_)
    phase_ = Phase::kPlain;
  else if (phase_ == Phase::kPlain && std::ssize(plain_.seconds) >= kPlain)
    compare();
}

void DraftRule::compare() {
  const bool won = guessed_.per_s() > plain_.per_s();
  num_losses_ = won ? 0 : num_losses_ + 1;
  length_ = won ? kCalm : kTrial;
  over_ = num_losses_ == kMostLosses;
  phase_ = Phase::kGuessing;
  guessed_ = plain_ = {};
}

}  // namespace fathom
