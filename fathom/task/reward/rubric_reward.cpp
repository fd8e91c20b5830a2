// The generative reward model: a judge decides the items of the prompt's rubric.
#include <algorithm>
#include <optional>

#include "fathom/base/rng.h"
#include "fathom/task/reward/rewards.h"
#include "fathom/task/reward/verdict.h"
#include "fathom/text/unicode.h"
#include "fathom/text/utf8.h"

namespace fathom::reward {
namespace {

constexpr size_t kMostAnswerBytes = size_t{1} << 18;

// Judges have been seen to praise a lone colon, so an answer without a letter or number is not
// shown to one. Neither is one that would not fit its context.
bool worth_judging(const ModelAnswer& a) {
  if (!a.finished() || a.content.size() > kMostAnswerBytes) return false;
  for (size_t at = 0; at < a.content.size();) {
    const Utf8Char c = utf8_front(std::string_view(a.content).substr(at));
    at += c.size_bytes;
    if (CharTable::get()[c.code] & (kLetter | kNumber)) return true;
  }
  return false;
}

int64_t count_words(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    words += !blank && !inside;
    inside = !blank;
  }
  return words;
}

bool rule_met(const RubricItem& item, const AnswerGroup& group, size_t i) {
  const std::string& content = group.answers[i].content;
  switch (item.check) {
    case RubricItem::Check::kContains:
      return content.find(item.text) != std::string::npos;
    case RubricItem::Check::kMaxWords:
      return count_words(content) <= std::stoll(item.text);
    case RubricItem::Check::kRight:
      return is_right(group, i);
    case RubricItem::Check::kJudge:
      break;
  }
  return false;
}

// One verdict that is wanted.
struct Ballot {
  size_t answer;
  int64_t vote;
  std::optional<std::vector<JudgedItem>> verdict = {};
  std::optional<Error> error = {};  // of the last try
};

CompletionRequest ballot_request(const AnswerGroup& group, const RewardOptions& options,
                                 const std::vector<RubricItem>& items, const Ballot& b,
                                 int64_t attempt) {
  const uint64_t seed = hash_mix(hash_mix(group.seed, b.answer),
                                 static_cast<uint64_t>(b.vote * options.judge_tries + attempt));
  CompletionRequest request =
      judge_request(group.problem.prompt, group.answers[b.answer].content, items, seed);
  request.max_tokens = options.judge_max_tokens;
  request.temperature = options.judge_votes > 1 || attempt > 0 ? 1 : 0;
  return request;
}

void read_reply(const CompletionResult& reply, const std::vector<RubricItem>& items, Ballot& b) {
  if (!reply) {
    b.error = reply.error();
    return;
  }
  auto verdict = parse_verdict(reply->message.content, items);
  if (verdict) {
    b.verdict = *std::move(verdict);
    b.error.reset();
  } else {
    b.error = verdict.error();
  }
}

// Fills the ballots; those that stay without a verdict hold an error.
void vote(const AnswerGroup& group, const RewardOptions& options, const RewardTools& tools,
          const std::vector<RubricItem>& items, std::vector<Ballot>& ballots) {
  CompletionLimits limits = CompletionLimits::within(options.judge_timeout_s);
  limits.cancel = tools.cancel;
  for (int64_t attempt = 0; attempt < options.judge_tries; ++attempt) {
    std::vector<Ballot*> open;
    std::vector<CompletionRequest> requests;
    for (Ballot& b : ballots) {
      if (b.verdict || (b.error && !worth_retry(*b.error))) continue;
      open.push_back(&b);
      requests.push_back(ballot_request(group, options, items, b, attempt));
    }
    if (open.empty() || (attempt > 0 && limits.expired())) return;
    const std::vector<CompletionResult> replies = tools.judge->complete_all(requests, limits);
    for (size_t i = 0; i < open.size(); ++i) read_reply(replies[i], items, *open[i]);
  }
}

// Most votes say that judged item `k` is fulfilled.
bool judged_met(const std::vector<Ballot>& ballots, size_t answer, size_t k, const RubricItem& item,
                std::string_view content) {
  int64_t yes = 0, all = 0;
  for (const Ballot& b : ballots) {
    if (b.answer != answer) continue;
    yes += fulfilled(item, (*b.verdict)[k], content);
    ++all;
  }
  return 2 * yes > all;
}

RewardValue score_answer(const AnswerGroup& group, size_t i, const std::vector<Ballot>& ballots) {
  for (const Ballot& b : ballots)
    if (b.answer == i && !b.verdict) return {std::nullopt, b.error->message()};
  double earned = 0, total = 0;
  bool gate = true;
  std::string failed;
  size_t k = 0;  // among the judged items
  for (const RubricItem& item : group.rubric) {
    const bool by_judge = item.check == RubricItem::Check::kJudge;
    const bool must_not = item.kind == RubricItem::Kind::kMustNot;
    const bool ok = by_judge ? judged_met(ballots, i, k++, item, group.answers[i].content)
                             : rule_met(item, group, i) != must_not;
    if (!ok) failed += (failed.empty() ? "not met: " : ", ") + item.id;
    if (!ok && item.kind != RubricItem::Kind::kShould) gate = false;
    if (must_not) continue;
    total += item.weight;
    earned += ok ? item.weight : 0;
  }
  return {!gate ? 0 : total > 0 ? earned / total : 1, failed};
}

}  // namespace

std::vector<RewardValue> rubric(const AnswerGroup& group, const RewardOptions& options,
                                const RewardTools& tools) {
  const size_t n = group.answers.size();
  if (group.rubric.empty())
    return std::vector<RewardValue>(n, {std::nullopt, "the prompt has no rubric"});
  const std::vector<RubricItem> items = judged_items(group.rubric);
  if (!items.empty() && tools.judge == nullptr)
    return std::vector<RewardValue>(n, {std::nullopt, "no judge"});
  std::vector<Ballot> ballots;
  for (size_t i = 0; i < n && !items.empty(); ++i)
    for (int64_t v = 0; v < options.judge_votes && worth_judging(group.answers[i]); ++v)
      ballots.push_back({i, v});
  if (!ballots.empty()) vote(group, options, tools, items, ballots);
  std::vector<RewardValue> values;
  for (size_t i = 0; i < n; ++i)
    values.push_back(worth_judging(group.answers[i]) ? score_answer(group, i, ballots)
                                                     : RewardValue{0, "nothing to judge"});
  return values;
}

}  // namespace fathom::reward
