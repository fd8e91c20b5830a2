// Judges, proofs, language and length against tests/golden/rewards/cases.jsonl; and that no case of
// the three tables of attacks is missing.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/task/reward/proof.h"
#include "fathom/task/reward/reward_testing.h"
#include "fathom/task/scripted_completer.h"

namespace fathom {
namespace {

std::vector<Json> table(const std::string& path) {
  return Json::parse_lines(read_file("tests/golden/" + path), path);
}

using Wanted = std::optional<double>;

Wanted wanted(const Json& value) { return value.is_null() ? Wanted() : Wanted(value.as_double()); }

void check_value(const Json& row, const Wanted& got, const Wanted& want) {
  const bool same = got.has_value() == want.has_value() && (!got || std::fabs(*got - *want) < 1e-4);
  CHECK_MESSAGE(same, row.dump(), ": got ", got ? std::to_string(*got) : "nothing");
}

void check_judge(const Json& row) {
  std::vector<ScriptedTurn> script;
  for (const Json& reply : row.at("replies").items())
    script.push_back({.content = reply.as_string()});
  ScriptedCompleter judge(std::move(script));
  AnswerGroup group;
  group.problem.prompt = "What is the capital of France?";
  group.rubric = {{.id = "a", .text = "names it", .kind = RubricItem::Kind::kMust}};
  group.answers = {plain_answer(row.at("content").as_string())};
  const RewardMix mix(with_rewards({"rubric"}));
  const RewardSheet sheet = mix.score(group, {.judge = &judge})[0];
  check_value(row, sheet.complete ? Wanted(sheet.reward) : Wanted(), wanted(row.at("want")));
  CHECK_MESSAGE(std::ssize(judge.requests()) == row.at("calls").as_int(), row.dump());
}

void check_language(const Json& row) {
  const ModelAnswer answer = thought_answer(row.at("content").as_string(), "5");
  check_value(row, language_share(answer, "auto", row.at("prompt").as_string()),
              wanted(row.at("want")));
}

void check_neutral(const Json& row) {
  AnswerGroup group;
  group.problem.prompt = row.at("prompt").as_string();
  for (const Json& content : row.at("contents").items())
    group.answers.push_back(plain_answer(content.as_string()));
  const std::vector<double> got = rewards_of(with_rewards({"language_always"}), group);
  for (size_t i = 0; i < got.size(); ++i)
    check_value(row, got[i], row.at("want").items().at(i).as_double());
}

void check_length(const Json& row) {
  std::vector<ModelAnswer> answers;
  for (const Json& a : row.at("answers").items())
    answers.push_back(plain_answer(a.items().at(0).as_string(), a.items().at(1).as_int()));
  const auto got = rewards_of(with_rewards({"length"}), chain_group(std::move(answers)));
  for (size_t i = 0; i < got.size(); ++i)
    check_value(row, got[i], row.at("want").items().at(i).as_double());
}

void check_proof(const Json& row) {
  const auto said = analysis_score(row.at("analysis").as_string());
  const double meta = row.at("meta").as_double();
  const double got = row.at("kind").as_string() == "verifier"
                         ? verifier_reward(said, row.at("truth").as_double(), meta)
                         : generator_reward(said, row.at("verified").as_double(), meta);
  check_value(row, got, wanted(row.at("want")));
}

}  // namespace

TEST_CASE("every row of the table of rewards gets its value") {
  for (const Json& row : table("rewards/cases.jsonl")) {
    const std::string& kind = row.at("kind").as_string();
    if (kind == "judge") {
      check_judge(row);
    } else if (kind == "language") {
      check_language(row);
    } else if (kind == "neutral") {
      check_neutral(row);
    } else if (kind == "length") {
      check_length(row);
    } else {
      REQUIRE((kind == "verifier" || kind == "generator"));
      check_proof(row);
    }
  }
}

TEST_CASE("every case of answers, judges, proofs, language and length stands in a table") {
  std::set<int64_t> found, wanted;
  for (const char* path : {"math/answers.jsonl", "math/responses.jsonl", "rewards/cases.jsonl"})
    for (const Json& row : table(path))
      if (const Json& number = row.at("case"); !number.is_string()) found.insert(number.as_int());
  for (int64_t i = 1; i <= 67; ++i) wanted.insert(i);
  for (int64_t i = 99; i <= 111; ++i) wanted.insert(i);
  CHECK(found == wanted);
}

}  // namespace fathom
