// Rewards of proofs that a model grades itself: DeepSeekMath-V2's verifier, meta-verifier and
// generator. (Training spec 1.11.)
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace fathom {

// The score of an analysis: what the one box holds that follows the last score phrase ("Based on my
// evaluation, the final overall score should be:", "overal" too), where the evaluation phrase
// ("Here is my evaluation of the solution:") stands before it. Nothing unless that is exactly 0,
// 0.5 or 1 and nothing but blanks and a full stop follows: the analysis is then in bad form.
std::optional<double> analysis_score(std::string_view analysis);

// 1 - |said - truth|, times what the meta-verifier gives the analysis (1 when it is not asked).
// Nothing said: 0.
double verifier_reward(std::optional<double> said, double truth, double meta = 1);

struct ProofWeights {
  double proof = 0.76, analysis = 0.24;
};
// Of a proof with an analysis of its own: `verified` is the verifier's score of the proof, `said`
// the proof's own. Nothing said: 0.
double generator_reward(std::optional<double> said, double verified, double meta = 1,
                        const ProofWeights& weights = {});

struct AssessedAnalysis {
  double score;                 // that the analysis gives the proof
  int64_t confirmed, assessed;  // of its defects: meta-assessments that confirm them, and all
};
// The label of a proof by its analyses alone. An analysis below 1 counts when more than half of its
// assessments confirm it. The lowest score that counts is the label if at least `least` analyses
// give it; 1 where none counts; nothing (for people to decide) otherwise and without analyses.
std::optional<double> automatic_label(std::span<const AssessedAnalysis> analyses, int64_t least);

}  // namespace fathom
