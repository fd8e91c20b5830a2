// Whether guessing tokens pays: steps with guesses and steps without take turns, and the ones that
// bring more tokens per second go on. The clock decides about speed only, never about tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

class DraftRule {
 public:
  // The next step of decoding may carry guesses.
  bool guesses() const { return !over_ && phase_ == Phase::kGuessing; }
  // Guessing was slower and has ended for good: keys of the guessing layer need not be kept.
  bool over() const { return over_; }
  // A step of `num_sequences` sequences that all decode took `seconds` and gave `num_tokens`.
  void count(bool guessed, int64_t num_sequences, int64_t num_tokens, double seconds);

  static constexpr int64_t kTrial = 24;      // steps with guesses before the first comparison
  static constexpr int64_t kPlain = 8;       // steps without them
  static constexpr int64_t kCalm = 480;      // steps with guesses once they have paid
  static constexpr int64_t kMostLosses = 2;  // comparisons in a row

 private:
  enum class Phase : uint8_t { kGuessing, kPlain };
  struct Rate {
    std::vector<double> seconds;  // of a step, divided by its sequences
    double tokens = 0;            // of one sequence, in all steps
    double per_s() const;         // mean tokens of a step over the median of its time
  };
  void compare();

  Phase phase_ = Phase::kGuessing;
  Rate guessed_, plain_;
  int64_t length_ = kTrial, num_losses_ = 0;
  bool over_ = false;
};

}  // namespace fathom
