// Any bytes as a rubric, as a judge's verdict, as an analysis of a proof and as an answer: read or
// refused, never a crash; a wrong or broken answer is never paid, and a verdict that was read names
// every item once.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/task/reward/proof.h"
#include "fathom/task/reward/reward.h"
#include "fathom/task/reward/scripts.h"
#include "fathom/task/reward/verdict.h"

namespace {

using namespace fathom;

std::vector<RubricItem> read_rubric(const std::string& text) {
  try {
    return rubric_from_json(Json::parse(text, "input"));
  } catch (const InternalError&) {
    throw;
  } catch (const Error&) {
    return {};
  }
}

void check_verdict(const std::string& text) {
  const std::vector<RubricItem> items = {{.id = "a", .text = "x"}, {.id = "b", .text = "y"}};
  const auto verdict = parse_verdict(text, items);
  if (!verdict) return;
  FM_CHECK(verdict->size() == 2 && (*verdict)[0].id == "a" && (*verdict)[1].id == "b", "{} items",
           verdict->size());
}

void check_answer(const std::string& text, TurnStart start) {
  AnswerGroup group;
  group.problem = {"mod10", "mod 10: 7,+5=?", "", "2", 1};
  group.answers = {read_answer_text(text, start, StopReason::kEnd, 1)};
  const ModelAnswer& a = group.answers[0];
  FM_CHECK(a.content.empty() || a.finished(), "content of an answer in bad form");
  RewardOptions options;
  options.rewards = {"outcome", "format", "language"};
  const RewardSheet sheet = RewardMix(options).score(group, {})[0];
  FM_CHECK(sheet.reward <= 1 || checked_answer(a, false) == "2", "paid {}", sheet.reward);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<RubricItem> rubric = read_rubric(text);
  if (!rubric.empty()) rubric_from_json(rubric_to_json(rubric));
  check_verdict(text);
  for (const TurnStart start : {TurnStart::kChoice, TurnStart::kThinking, TurnStart::kAnswer})
    check_answer(text, start);
  const ScriptCounts counts = count_scripts(text);
  FM_CHECK(counts.num_letters() <= static_cast<int64_t>(size), "{} letters", counts.num_letters());
  FM_CHECK(counts.name_letters <= counts.letters[static_cast<size_t>(Script::kLatin)],
           "{} letters of names", counts.name_letters);
  const double score = analysis_score(text).value_or(0);
  FM_CHECK(score == 0 || score == 0.5 || score == 1, "score {}", score);
  return 0;
}
