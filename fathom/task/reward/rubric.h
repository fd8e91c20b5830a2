// A prompt's own list of what a good answer does, for a generative reward model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

struct RubricItem {
  // A must that is not met and a must-not that is violated make the score 0.
  enum class Kind : uint8_t { kMust, kShould, kMustNot };
  // Who decides: the judge; or a rule, with the text as its operand: the answer contains the text,
  // has at most that many words, is right by the verifier.
  enum class Check : uint8_t { kJudge, kContains, kMaxWords, kRight };
  std::string id, text;
  double weight = 1;
  Kind kind = Kind::kShould;
  Check check = Check::kJudge;
};

// [{"id": "a", "text": "...", "weight": 2, "type": "must", "check": "judge"}, ...]; weight, type
// and check may be absent. Throws Error that names the item: no items, ids twice, unknown names or
// keys, weights that are not positive.
std::vector<RubricItem> rubric_from_json(const Json& array);
// Those that a judge decides, in order.
std::vector<RubricItem> judged_items(const std::vector<RubricItem>& rubric);
Json rubric_to_json(const std::vector<RubricItem>& rubric);

}  // namespace fathom
