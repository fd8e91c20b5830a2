#include "fathom/task/verify/answer.h"

#include <string>

#include "fathom/task/verify/math.h"

namespace fathom {
namespace {

constexpr std::string_view kThinkBegin = "<think>", kThinkEnd = "</think>";

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Blanks only where they part two words, one each: "47 , 93 " and "47,93" are equal, "4 7" and "47"
// are not.
std::string without_idle_blanks(std::string_view text) {
  std::string out;
  bool blank = false;
  for (const char c : text) {
    if (is_blank(c)) {
      blank = true;
      continue;
    }
    if (blank && !out.empty() && is_word(out.back()) && is_word(c)) out += ' ';
    blank = false;
    out += c;
  }
  return out;
}

}  // namespace

std::string_view final_answer(std::string_view model_text) {
  const size_t end = model_text.find(kThinkEnd);
  if (end != std::string_view::npos) return model_text.substr(end + kThinkEnd.size());
  if (model_text.find(kThinkBegin) != std::string_view::npos) return {};
  return model_text;
}

bool answer_correct(const Problem& problem, std::string_view model_text) {
  const std::string answer = without_idle_blanks(final_answer(model_text));
  if (problem.family == "countdown") return countdown_correct(problem.prompt, answer);
  if (problem.family == "maze") return maze_correct(problem.prompt, answer);
  if (!problem.family.empty() && find_family(problem.family).by_value)
    return check_math(problem.answer, answer, {.literal = true}).result == MathResult::kEqual;
  return !answer.empty() && answer == without_idle_blanks(problem.answer);
}

}  // namespace fathom
