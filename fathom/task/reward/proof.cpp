#include "fathom/task/reward/proof.h"

#include <cmath>

namespace fathom {
namespace {

constexpr std::string_view kEvaluation = "Here is my evaluation of the solution:";
constexpr std::string_view kBox = "\\boxed{";

// What follows the last score phrase; nothing when there is none after the evaluation phrase.
std::optional<std::string_view> after_score_phrase(std::string_view text) {
  const size_t evaluation = text.find(kEvaluation);
  if (evaluation == std::string_view::npos) return std::nullopt;
  text.remove_prefix(evaluation + kEvaluation.size());
  std::optional<std::string_view> rest;
  for (const std::string_view phrase :
       {"Based on my evaluation, the final overall score should be:",
        "Based on my evaluation, the final overal score should be:"}) {
    const size_t at = text.rfind(phrase);
    if (at == std::string_view::npos) continue;
    const std::string_view after = text.substr(at + phrase.size());
    if (!rest || after.size() < rest->size()) rest = after;
  }
  return rest;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

}  // namespace

std::optional<double> analysis_score(std::string_view analysis) {
  const auto after = after_score_phrase(analysis);
  if (!after) return std::nullopt;
  std::string_view rest = trimmed(*after);
  if (rest.ends_with('.')) rest = trimmed(rest.substr(0, rest.size() - 1));
  if (!rest.starts_with(kBox) || !rest.ends_with('}')) return std::nullopt;
  const std::string_view score = rest.substr(kBox.size(), rest.size() - kBox.size() - 1);
  if (score == "0") return 0;
  if (score == "0.5") return 0.5;
  if (score == "1") return 1;
  return std::nullopt;
}

double verifier_reward(std::optional<double> said, double truth, double meta) {
  return said ? (1 - std::fabs(*said - truth)) * meta : 0;
}

double generator_reward(std::optional<double> said, double verified, double meta,
                        const ProofWeights& weights) {
  if (!said) return 0;
  return weights.proof * verified + weights.analysis * verifier_reward(said, verified, meta);
}

std::optional<double> automatic_label(std::span<const AssessedAnalysis> analyses, int64_t least) {
  if (analyses.empty()) return std::nullopt;
  double lowest = 1;
  int64_t count = 0;
  for (const AssessedAnalysis& a : analyses) {
    if (a.score >= 1 || 2 * a.confirmed <= a.assessed || a.score > lowest) continue;
    count = a.score < lowest ? 1 : count + 1;
    lowest = a.score;
  }
  if (lowest < 1 && count < least) return std::nullopt;
  return lowest;
}

}  // namespace fathom
