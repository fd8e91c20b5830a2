#include "fathom/eval/generated_problems.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "fathom/infer/session.h"
#include "fathom/task/verify/answer.h"

namespace fathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void add_score(FamilyScore* s, const ProblemAnswer& a) {
  s->num_correct += a.correct;
  ++s->num_problems;
  s->num_tokens += a.num_tokens;
}

}  // namespace

const FamilyScore* ProblemScores::find(const std::string& family) const {
  const auto it = std::ranges::find(families, family, &FamilyScore::family);
  return it == families.end() ? nullptr : &*it;
}

ProblemScores evaluate_problems(Engine& engine, const Tokenizer& tokenizer,
                                const std::vector<Problem>& problems,
                                const ProblemEvalOptions& options) {
  struct Running {
    size_t problem = 0;
    std::vector<int32_t> tokens;
  };
  const double begin_s = now_s();
  ProblemScores out;
  out.answers.resize(problems.size());
  std::map<SequenceId, Running> running;
  std::vector<size_t> prompt_size(problems.size());
  const std::vector<int32_t> ends = end_tokens(engine.model().config, tokenizer);
  for (size_t i = 0; i < problems.size(); ++i) {
    Request r;
    r.prompt = encode_user_turn(tokenizer, problems[i].prompt, options.thinking, true);
    r.params.temperature = options.temperature;
    r.params.seed = i;
    r.params.max_tokens = options.max_tokens;
    r.params.stop_ids = ends;
    prompt_size[i] = r.prompt.size();
    running[engine.add(std::move(r))].problem = i;
  }
  while (!engine.idle()) {
    for (const Event& e : engine.step()) {
      Running& run = running.at(e.id);
      if (e.token >= 0) run.tokens.push_back(e.token);
      if (e.finished == FinishReason::kNone) continue;
      ProblemAnswer& a = out.answers[run.problem];
      a.problem = problems[run.problem];
      a.num_tokens = static_cast<int64_t>(run.tokens.size());
      a.ended = e.finished == FinishReason::kStop;
      if (a.ended && !run.tokens.empty()) run.tokens.pop_back();
      a.text = (options.thinking ? "<think>" : "") + tokenizer.decode(run.tokens);
      a.correct = a.ended && answer_correct(a.problem, a.text);
    }
  }
  double attended = 0, visible = 0;
  std::map<std::string, FamilyScore> families;
  for (size_t i = 0; i < out.answers.size(); ++i) {
    const ProblemAnswer& a = out.answers[i];
    add_score(&out.all, a);
    FamilyScore& family = families[a.problem.family];
    family.family = a.problem.family;
    add_score(&family, a);
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      const int64_t n = static_cast<int64_t>(prompt_size[i]) + t;
      visible += static_cast<double>(n);
      attended += static_cast<double>(options.index_topk > 0 ? std::min(n, options.index_topk) : n);
    }
  }
  for (auto& [name, score] : families) out.families.push_back(score);
  out.all.family = "all";
  out.keys_share = visible > 0 ? attended / visible : 1;
  out.seconds = now_s() - begin_s;
  return out;
}

}  // namespace fathom
