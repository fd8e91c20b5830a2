// Outcome, format and language: what the text alone decides.
#include <algorithm>

#include "fathom/task/reward/rewards.h"
#include "fathom/task/reward/scripts.h"

namespace fathom {
namespace reward {
namespace {

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

bool well_formed(const ModelAnswer& a, bool tags) {
  if (!a.finished() || blank(checked_answer(a, tags))) return false;
  if (a.start == TurnStart::kAnswer) return a.form == AnswerForm::kPlain;
  return a.form == AnswerForm::kThought && !blank(a.thinking);
}

constexpr ScriptSet kJapanese = script_bit(Script::kHan) | script_bit(Script::kKana);
constexpr ScriptSet kEastAsian = kJapanese | script_bit(Script::kHangul);
constexpr int64_t kMostHanAlone = 8;  // letters of a Japanese text that has no kana, as a name

int64_t letters_of(const ScriptCounts& counts, Script s) {
  return counts.letters[static_cast<size_t>(s)];
}

ScriptSet expected_scripts(const std::string& language, const std::string& prompt) {
  if (language != "auto") return parse_script_set(language);
  const ScriptCounts counts = count_scripts(prompt);
  const Script main = counts.main();
  // Japanese and Korean texts mix their own letters with Han.
  if (main == Script::kKana || (main == Script::kHan && letters_of(counts, Script::kKana) > 0))
    return kJapanese;
  return script_bit(main) | (main == Script::kHangul ? script_bit(Script::kHan) : 0);
}

// Answers without letters are neutral: they get the mean of those that are paid and have some.
std::vector<RewardValue> language_of(const AnswerGroup& group, const RewardOptions& options,
                                     bool right_only) {
  std::vector<RewardValue> values(group.answers.size(), {0.0});
  std::vector<size_t> neutral;
  double sum = 0, n = 0;
  for (size_t i = 0; i < group.answers.size(); ++i) {
    const ModelAnswer& a = group.answers[i];
    if (!a.finished() || (right_only && !is_right(group, i))) continue;
    const auto share = language_share(a, options.language, group.problem.prompt);
    if (!share) {
      neutral.push_back(i);
      continue;
    }
    values[i].value = *share;
    sum += *share;
    n += 1;
  }
  for (const size_t i : neutral) values[i].value = n > 0 ? sum / n : 0;
  return values;
}

}  // namespace

std::vector<RewardValue> outcome(const AnswerGroup& group, const RewardOptions&,
                                 const RewardTools&) {
  std::vector<RewardValue> values(group.answers.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (i < group.right.size() && group.right[i]) {
      values[i].value = *group.right[i] ? 1 : 0;
    } else {
      values[i].note = "the problem has no answer to compare with";
    }
  }
  return values;
}

std::vector<RewardValue> format(const AnswerGroup& group, const RewardOptions& options,
                                const RewardTools&) {
  std::vector<RewardValue> values;
  for (const ModelAnswer& a : group.answers)
    values.push_back({well_formed(a, options.answer_tags) ? 1.0 : 0.0});
  return values;
}

std::vector<RewardValue> language(const AnswerGroup& group, const RewardOptions& options,
                                  const RewardTools&) {
  return language_of(group, options, true);
}

std::vector<RewardValue> language_always(const AnswerGroup& group, const RewardOptions& options,
                                         const RewardTools&) {
  return language_of(group, options, false);
}

std::vector<RewardValue> thinking(const AnswerGroup& group, const RewardOptions&,
                                  const RewardTools&) {
  std::vector<RewardValue> values;
  for (const ModelAnswer& a : group.answers)
    values.push_back(
        {a.finished() && a.form == AnswerForm::kThought && !blank(a.thinking) ? 1.0 : 0.0});
  return values;
}

}  // namespace reward

std::optional<double> language_share(const ModelAnswer& answer, const std::string& language,
                                     const std::string& prompt) {
  const ScriptCounts counts = count_scripts(answer.thinking + '\n' + answer.content);
  int64_t good = counts.ascii_digits, all = counts.ascii_digits + counts.other_digits;
  if (language != "digits") {
    using namespace reward;
    ScriptSet expected = expected_scripts(language, prompt);
    const bool chinese =
        letters_of(counts, Script::kKana) == 0 && letters_of(counts, Script::kHan) > kMostHanAlone;
    if (expected == kJapanese && chinese) expected = script_bit(Script::kKana);
    good = 0;
    all = counts.num_letters();
    if ((expected & kEastAsian) && !(expected & script_bit(Script::kLatin)))
      all -= counts.name_letters;
    for (size_t s = 0; s < kNumScripts; ++s)
      if (expected & script_bit(static_cast<Script>(s))) good += counts.letters[s];
  }
  if (all == 0) return std::nullopt;
  return static_cast<double>(good) / static_cast<double>(all);
}

}  // namespace fathom
