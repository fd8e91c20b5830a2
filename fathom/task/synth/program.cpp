#include "fathom/task/synth/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/task/synth/generators.h"

namespace fathom {
namespace {

using List = std::vector<int64_t>;

constexpr int64_t kLeastNumber = 2, kMostNumber = 9;

// `words` and `python` may have {0}, the step's number.
struct Step {
  const char* words;
  const char* python;  // statement on the list a
  void (*apply)(List& a, int64_t k);
};

void keep(List& a, bool (*good)(int64_t value, int64_t k), int64_t k) {
  std::erase_if(a, [&](int64_t v) { return !good(v, k); });
}

// Each at most once in a task, so values stay far from the bounds of 64 bits.
constexpr Step kSteps[] = {
    {"Keep only the even numbers.", "a = [x for x in a if x % 2 == 0]",
     [](List& a, int64_t k) {
       keep(
           a, [](int64_t v, int64_t) { return v % 2 == 0; }, k);
     }},
    {"Keep only the numbers greater than {0}.", "a = [x for x in a if x > {0}]",
     [](List& a, int64_t k) {
       keep(
           a, [](int64_t v, int64_t n) { return v > n; }, k);
     }},
    {"Remove the multiples of {0}.", "a = [x for x in a if x % {0} != 0]",
     [](List& a, int64_t k) {
       keep(
           a, [](int64_t v, int64_t n) { return v % n != 0; }, k);
     }},
    {"Replace each number by its square.", "a = [x * x for x in a]",
     [](List& a, int64_t) {
       for (int64_t& v : a) v *= v;
     }},
    {"Replace each number by its absolute value.", "a = [abs(x) for x in a]",
     [](List& a, int64_t) {
       for (int64_t& v : a) v = std::abs(v);
     }},
    {"Multiply each number by {0}.", "a = [x * {0} for x in a]",
     [](List& a, int64_t k) {
       for (int64_t& v : a) v *= k;
     }},
    {"Subtract {0} from each number.", "a = [x - {0} for x in a]",
     [](List& a, int64_t k) {
       for (int64_t& v : a) v -= k;
     }},
    {"Sort the numbers in ascending order.", "a.sort()",
     [](List& a, int64_t) { std::sort(a.begin(), a.end()); }},
    {"Reverse the order of the numbers.", "a.reverse()",
     [](List& a, int64_t) { std::reverse(a.begin(), a.end()); }},
    {"Remove every number that has occurred before in the list.", "a = list(dict.fromkeys(a))",
     [](List& a, int64_t) {
       List seen;
       for (const int64_t v : a)
         if (std::find(seen.begin(), seen.end(), v) == seen.end()) seen.push_back(v);
       a = std::move(seen);
     }},
    {"Remove the first {0} numbers (all, if there are fewer).", "a = a[{0}:]",
     [](List& a, int64_t k) { a.erase(a.begin(), a.begin() + std::min(k, std::ssize(a))); }},
    {"Replace each number by the sum of all numbers up to and including it.",
     "a = list(__import__('itertools').accumulate(a))",
     [](List& a, int64_t) { std::partial_sum(a.begin(), a.end(), a.begin()); }},
    {"Replace the list by the differences of neighbours, each number minus the one before it.",
     "a = [y - x for x, y in zip(a, a[1:])]",
     [](List& a, int64_t) {
       std::adjacent_difference(a.begin(), a.end(), a.begin());
       if (!a.empty()) a.erase(a.begin());
     }},
};

struct End {
  const char* words;
  const char* python;
  std::string (*print)(const List& a);
};

std::string most_frequent(const List& a) {
  std::map<int64_t, int> counts;
  for (const int64_t v : a) ++counts[v];
  const auto best =
      std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) {
        return x.second < y.second;  // the first of equal ones
      });
  return a.empty() ? "none" : std::to_string(best->first);
}

constexpr End kEnds[] = {
    {"Print their sum, 0 for an empty list.", "print(sum(a))",
     [](const List& a) { return std::to_string(std::accumulate(a.begin(), a.end(), int64_t{0})); }},
    {"Print how many there are.", "print(len(a))",
     [](const List& a) { return std::to_string(a.size()); }},
    {"Print the largest, or none for an empty list.", "print(max(a, default='none'))",
     [](const List& a) {
       return a.empty() ? "none" : std::to_string(*std::max_element(a.begin(), a.end()));
     }},
    {"Print the difference of the largest and the smallest, or none for an empty list.",
     "print(max(a) - min(a) if a else 'none')",
     [](const List& a) {
       const auto [low, high] = std::minmax_element(a.begin(), a.end());
       return a.empty() ? "none" : std::to_string(*high - *low);
     }},
    {"Print the number that occurs most often, the smallest of several, or none for an empty list.",
     "print(min(a, key=lambda x: (-a.count(x), x), default='none'))", most_frequent},
    {"Print them on one line, separated by blanks, or empty for an empty list.",
     "print(*a if a else ['empty'])",
     [](const List& a) { return a.empty() ? "empty" : fmt::format("{}", fmt::join(a, " ")); }},
};

struct Plan {
  std::vector<std::pair<const Step*, int64_t>> steps;
  const End* end;

  // What it prints; `without` is a step to leave out.
  std::string run(List a, size_t without = SIZE_MAX) const {
    for (size_t i = 0; i < steps.size(); ++i)
      if (i != without) steps[i].first->apply(a, steps[i].second);
    return end->print(a);
  }
};

Plan draw_plan(Rng& rng, int difficulty) {
  Plan plan;
  for (const int64_t i : synth::draw_distinct(rng, difficulty, std::ssize(kSteps)))
    plan.steps.emplace_back(&kSteps[i], rng.range(kLeastNumber, kMostNumber));
  plan.end = &kEnds[rng.below(std::size(kEnds))];
  return plan;
}

List draw_list(Rng& rng, int64_t size, int64_t bound) {
  List a(static_cast<size_t>(size));
  for (int64_t& v : a) v = rng.range(-bound, bound);
  return a;
}

// The empty list, short ones, ones with many equal numbers, long ones.
std::vector<List> draw_inputs(Rng& rng) {
  std::vector<List> inputs = {{}, draw_list(rng, 1, 20), draw_list(rng, 2, 20)};
  for (const auto& [size, bound] : std::initializer_list<std::pair<int64_t, int64_t>>{
           {6, 3}, {9, 4}, {12, 5}, {7, 20}, {10, 20}, {15, 100}, {20, 100}})
    inputs.push_back(draw_list(rng, size, bound));
  return inputs;
}

// The most frequent of the outputs must not earn half of the tests, nor a plan without a step all.
bool tests_tell(const Plan& plan, const std::vector<List>& inputs) {
  std::map<std::string, size_t> outputs;
  for (const List& a : inputs) ++outputs[plan.run(a)];
  for (const auto& [output, count] : outputs)
    if (count * 2 > inputs.size()) return false;
  for (size_t i = 0; i < plan.steps.size(); ++i)
    if (std::all_of(inputs.begin(), inputs.end(),
                    [&](const List& a) { return plan.run(a, i) == plan.run(a); }))
      return false;
  return true;
}

std::string line_of(const List& a) { return fmt::format("{}\n", fmt::join(a, " ")); }

std::string in_words(const Step& step, int64_t k) {
  return fmt::format(fmt::runtime(step.words), k);
}

std::string reference_of(const Plan& plan) {
  std::string program = "a = [int(x) for x in input().split()]\n";
  for (const auto& [step, k] : plan.steps)
    program += fmt::format(fmt::runtime(step->python), k) + "\n";
  return program + plan.end->python + "\n";
}

// A function of the plan alone, so that the prompt tells which tests a program has to pass.
std::vector<List> inputs_of(const Plan& plan) {
  Rng rng(hash_bytes(reference_of(plan)), "program.tests");
  return draw_inputs(rng);
}

CodeProblem tests_of(const Plan& plan, CodeLanguage language) {
  CodeProblem code{.language = language};
  for (const List& a : inputs_of(plan)) code.tests.push_back({line_of(a), plan.run(a) + "\n"});
  return code;
}

// What "N. WORDS" says.
std::pair<const Step*, int64_t> find_step(std::string_view words) {
  for (const Step& step : kSteps)
    for (int64_t k = kLeastNumber; k <= kMostNumber; ++k)
      if (in_words(step, k) == words) return {&step, k};
  return {nullptr, 0};
}

const End* find_end(std::string_view words) {
  for (const End& end : kEnds)
    if (end.words == words) return &end;
  return nullptr;
}

// The plan that a prompt of write_task tells.
Plan read_plan(std::string_view prompt) {
  Plan plan{{}, nullptr};
  for (int number = 1; plan.end == nullptr; ++number) {
    const std::string begin = fmt::format("\n{}. ", number);
    const size_t at = prompt.find(begin);
    if (at == std::string_view::npos)
      throw Error(Code::kInvalidArgument, "expected the steps of a generated program in the prompt",
                  "give other programs tests of their own");
    prompt.remove_prefix(at + begin.size());
    const std::string_view words = prompt.substr(0, prompt.find('\n'));
    plan.end = find_end(words);
    const auto step = find_step(words);
    if (step.first) plan.steps.push_back(step);
  }
  return plan;
}

std::string fenced(const std::string& program) { return "```python\n" + program + "```"; }

ProgramTask write_task(const Plan& plan, const List& example, CodeLanguage language) {
  ProgramTask task;
  task.difficulty = static_cast<int>(plan.steps.size());
  task.code = tests_of(plan, language);
  task.reference = reference_of(plan);
  task.prompt = fmt::format(
      "Write a program in {}. It reads one line of integers, separated by blanks; the line may be "
      "empty. With the list of them it does the following, in this order.\n",
      language == CodeLanguage::kPython ? "Python" : "C++");
  int number = 0;
  for (const auto& [step, k] : plan.steps)
    task.prompt += fmt::format("{}. {}\n", ++number, in_words(*step, k));
  task.prompt += fmt::format("{}. {}\n", ++number, plan.end->words);
  task.prompt += fmt::format("For the input \"{}\" it prints \"{}\".\n", fmt::join(example, " "),
                             plan.run(example));
  return task;
}

bool program_held_out(const ProgramTask& task) {
  return held_out({.family = std::string(kPythonFamily), .answer = fenced(task.reference)});
}

}  // namespace

ProgramTask make_program_task(Rng& rng, int difficulty, CodeLanguage language) {
  if (difficulty < 1 || difficulty > kMaxProgramDifficulty)
    throw Error(Code::kInvalidArgument,
                fmt::format("expected a difficulty of programs from 1 to {}, found {}",
                            kMaxProgramDifficulty, difficulty));
  while (true) {
    const Plan plan = draw_plan(rng, difficulty);
    const List example = draw_list(rng, 5, 9);
    if (!tests_tell(plan, inputs_of(plan))) continue;
    return write_task(plan, example, language);
  }
}

ProgramTask make_program_task(Rng& rng, int difficulty, CodeLanguage language, Split split) {
  while (true) {
    ProgramTask task = make_program_task(rng, difficulty, language);
    if (program_held_out(task) == (split == Split::kHeldOut)) return task;
  }
}

namespace synth {

Problem make_python(Rng& rng, int difficulty) {
  ProgramTask task = make_program_task(rng, difficulty, CodeLanguage::kPython);
  return {.prompt = std::move(task.prompt), .answer = fenced(task.reference)};
}

CodeProblem python_tests(const Problem& problem) {
  return tests_of(read_plan(problem.prompt), CodeLanguage::kPython);
}

void spoil_python(Problem& problem, double wrong_share, Rng& rng) {
  Plan plan = read_plan(problem.prompt);
  for (auto& step : plan.steps)
    if (rng.uniform() < wrong_share)
      step = {&kSteps[rng.below(std::size(kSteps))], rng.range(kLeastNumber, kMostNumber)};
  problem.answer = fenced(reference_of(plan));
}

}  // namespace synth
}  // namespace fathom
