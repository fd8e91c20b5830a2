// Weighted sums of rewards, and rollouts that are scored with them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "fathom/base/error.h"
#include "fathom/task/reward/reward.h"
#include "fathom/task/reward/scripts.h"
#include "fathom/task/verify/answer.h"
#include "fathom/task/verify/extract.h"
#include "fathom/task/verify/math.h"

namespace fathom {
namespace {

double parse_weight(std::string_view text, const std::string& spec) {
  double weight = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (error != std::errc() || stop != text.data() + text.size() || !(weight >= 0) ||
      !std::isfinite(weight))
    throw Error(
        Code::kInvalidArgument,
        fmt::format("rewards: '{}': expected a weight of at least 0, found '{}'", spec, text),
        "write [DOMAIN:]NAME[*WEIGHT]");
  return weight;
}

void expect_at_least(const char* name, double value, double low) {
  if (value >= low) return;
  throw Error(Code::kInvalidArgument,
              fmt::format("{}: expected at least {}, found {}", name, low, value));
}

// Whether answers to a mathematical problem are right, and why where they are not. Nothing where
// the known answer cannot be read.
std::vector<std::string> verify_mathematics(AnswerGroup& group, bool tags, MathChecker* checker) {
  std::vector<std::string> notes;
  const std::string& gold = group.problem.answer;
  const MathOptions options{.literal = true};  // the question is no answer to itself
  for (const ModelAnswer& a : group.answers) {
    std::optional<bool>& right = group.right.emplace_back(false);
    std::string& note = notes.emplace_back();
    if (!a.finished()) continue;
    const std::string answer =
        tags ? std::string(checked_answer(a, tags)) : extract_answer(a.content).text;
    try {
      const MathVerdict verdict =
          checker ? checker->check(gold, answer, options) : check_math(gold, answer, options);
      if (verdict.result == MathResult::kUnparsableGold) right.reset();
      if (verdict.result == MathResult::kEqual)
        right = true;
      else
        note = fmt::format("{}: {}", math_result_name(verdict.result), verdict.reason);
    } catch (const Error& e) {  // no worker: it says nothing about the answer
      right.reset();
      note = e.message();
    }
  }
  return notes;
}

// The line that says most: the compiler's first, the last of a traceback.
std::string one_line(const CodeResult& result) {
  std::string_view text = result.note;
  text = text.substr(0, text.find_last_not_of(" \n") + 1);
  if (result.verdict == CodeVerdict::kCompileError)
    return std::string(text.substr(0, text.find('\n')));
  return std::string(text.substr(text.rfind('\n') + 1));
}

// The same for programs, which pass all tests or are wrong. Nothing where the sandbox fails. Equal
// texts are run once.
std::vector<std::string> verify_programs(AnswerGroup& group, bool tags, CodeVerifier* verifier) {
  std::vector<std::string> notes;
  std::map<std::string_view, CodeResult> results;
  for (const ModelAnswer& a : group.answers) {
    std::optional<bool>& right = group.right.emplace_back(false);
    std::string& note = notes.emplace_back();
    if (!a.finished()) continue;
    if (verifier == nullptr) {
      right.reset();
      note = "no sandbox to run it in";
      continue;
    }
    const std::string_view text = checked_answer(a, tags);
    auto known = results.find(text);
    if (known == results.end())
      known = results.emplace(text, verifier->check(text, *group.code)).first;
    const CodeResult& result = known->second;
    if (result.verdict == CodeVerdict::kUnknown) right.reset();
    if (result.verdict == CodeVerdict::kPass)
      right = true;
    else
      note = fmt::format("{}; {}", code_verdict_name(result.verdict), one_line(result));
  }
  return notes;
}

// One note per answer, or none at all.
std::vector<std::string> verify_answers(AnswerGroup& group, const RewardTools& tools, bool tags,
                                        MathChecker* checker) {
  if (!group.right.empty()) return {};
  if (group.code != nullptr) return verify_programs(group, tags, tools.code);
  if (group.problem.answer.empty()) return {};
  const std::string& family = group.problem.family;
  if (family.empty() ? group.domain == kMathDomain : find_family(family).by_value)
    return verify_mathematics(group, tags, checker);
  for (const ModelAnswer& a : group.answers) {
    const std::string_view answer = checked_answer(a, tags);
    group.right.push_back(a.finished() && !answer.empty() && answer_correct(group.problem, answer));
  }
  return {};
}

void add_note(RewardSheet& sheet, std::string_view name, const std::string& note) {
  if (note.empty()) return;
  if (!sheet.verdict.empty()) sheet.verdict += "; ";
  sheet.verdict += fmt::format("{}: {}", name, note);
}

std::string first_verdict(const ModelAnswer& a, const std::optional<bool>& right) {
  if (!a.finished())
    return fmt::format("{}, {}", stop_reason_name(a.stop), answer_form_name(a.form));
  return right ? *right ? "right" : "wrong" : "";
}

}  // namespace

RewardMix::RewardMix(const RewardOptions& options) : options_(options) {
  expect_at_least("math_deadline_ms", static_cast<double>(options.math_deadline_ms), 1);
  if (!options.math_worker.empty())
    math_ = std::make_shared<MathChecker>(MathCheckerOptions{
        .command = options.math_worker, .deadline_ms = options.math_deadline_ms});
  for (const std::string& spec : options.rewards) {
    std::string_view rest = spec;
    double weight = 1;
    if (const size_t star = rest.find('*'); star != std::string_view::npos) {
      weight = parse_weight(rest.substr(star + 1), spec);
      rest = rest.substr(0, star);
    }
    std::string domain;
    if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
      domain = rest.substr(0, colon);
      rest = rest.substr(colon + 1);
    }
    parts_.push_back({&find_reward(rest), domain, weight});
  }
  for (const std::string& name : options.reward_gates) gates_.push_back(&find_reward(name));
  if (options.language != "auto" && options.language != "digits")
    parse_script_set(options.language);
  expect_at_least("soft_overlong_tokens", static_cast<double>(options.soft_overlong_tokens), 0);
  expect_at_least("judge_votes", static_cast<double>(options.judge_votes), 1);
  expect_at_least("judge_tries", static_cast<double>(options.judge_tries), 1);
  expect_at_least("judge_max_tokens", static_cast<double>(options.judge_max_tokens), 1);
  expect_at_least("judge_timeout_s", options.judge_timeout_s, 0);
}

bool RewardMix::needs_judge() const {
  const auto judged = [](const RewardEntry* e) { return e->name == "rubric"; };
  return std::ranges::any_of(gates_, judged) || std::ranges::any_of(parts_, [&](const Part& p) {
           return p.weight > 0 && judged(p.entry);
         });
}

std::vector<RewardMix::Part> RewardMix::parts_of(const std::string& domain) const {
  std::vector<Part> parts;
  for (const Part& p : parts_) {
    if (!p.domain.empty() && p.domain != domain) continue;
    const auto same = [&](const Part& other) { return other.entry == p.entry; };
    const auto known = std::ranges::find_if(parts, same);
    if (known == parts.end()) {
      parts.push_back(p);
    } else if (!p.domain.empty() || known->domain.empty()) {
      *known = p;  // the domain's own weight wins over the general one, else the later
    }
  }
  std::erase_if(parts, [](const Part& p) { return p.weight == 0 && p.entry->judged; });
  return parts;
}

std::vector<RewardSheet> RewardMix::score(AnswerGroup group, const RewardTools& tools) const {
  const std::vector<std::string> notes =
      verify_answers(group, tools, options_.answer_tags, math_.get());
  const size_t n = group.answers.size();
  std::vector<RewardSheet> sheets(n);
  for (size_t i = 0; i < n; ++i) {
    if (i < group.right.size()) sheets[i].right = group.right[i];
    sheets[i].verdict = first_verdict(group.answers[i], sheets[i].right);
    if (!notes.empty()) add_note(sheets[i], group.code ? "program" : kMathDomain, notes[i]);
  }
  std::vector<uint8_t> open(n, 1);
  for (const RewardEntry* gate : gates_) {
    const std::vector<RewardValue> values = gate->score(group, options_, tools);
    for (size_t i = 0; i < n; ++i) {
      if (!values[i].value) sheets[i].complete = false;
      if (values[i].value.value_or(0) < 1) {
        open[i] = 0;
        add_note(sheets[i], gate->name, values[i].note.empty() ? "shut" : values[i].note);
      }
    }
  }
  for (const Part& part : parts_of(group.domain)) {
    const std::vector<RewardValue> values = part.entry->score(group, options_, tools);
    for (size_t i = 0; i < n; ++i) {
      if (part.weight > 0) add_note(sheets[i], part.entry->name, values[i].note);
      if (!values[i].value) {
        if (part.weight > 0) sheets[i].complete = false;
        continue;
      }
      const double value = open[i] ? *values[i].value : std::min(*values[i].value, 0.0);
      sheets[i].parts.push_back({std::string(part.entry->name), value, part.weight});
      sheets[i].reward += part.weight * value;
    }
  }
  return sheets;
}

std::vector<std::optional<bool>> score_rollouts(std::span<Rollout> rollouts, AnswerGroup group,
                                                const Tokenizer& tokenizer, const RewardMix& mix,
                                                const RewardTools& tools) {
  group.answers.clear();
  for (const Rollout& r : rollouts) group.answers.push_back(read_answer(tokenizer, r));
  std::vector<RewardSheet> sheets = mix.score(std::move(group), tools);
  std::vector<std::optional<bool>> right;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    right.push_back(sheets[i].right);
    rollouts[i].rewards = std::move(sheets[i].parts);
    rollouts[i].reward = sheets[i].complete ? sheets[i].reward : 0;
    rollouts[i].verdict = std::move(sheets[i].verdict);
    if (!sheets[i].complete) rollouts[i].stop = StopReason::kUnscored;
  }
  return right;
}

}  // namespace fathom
