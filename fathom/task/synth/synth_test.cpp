#include <doctest/doctest.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/task/synth/problem.h"

namespace fathom {
namespace {

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t from = 0;
  while (true) {
    const size_t at = text.find(separator, from);
    parts.push_back(text.substr(from, at - from));
    if (at == std::string::npos) return parts;
    from = at + separator.size();
  }
}

// Value of digits joined by + - * / with the usual precedence, no parentheses; an evaluator of its
// own.
int64_t evaluate(const std::string& text) {
  int64_t total = 0, term = 0;
  char add = '+', op = ' ';
  size_t at = 0;
  while (at < text.size()) {
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + text.size(), number);
    REQUIRE(error == std::errc());
    at = static_cast<size_t>(stop - text.data());
    term = op == '*' ? term * number : op == '/' ? term / number : number;
    op = at < text.size() ? text[at++] : '+';
    if (op == '*' || op == '/') continue;
    total += add == '+' ? term : -term;
    add = op;
  }
  return total;
}

int64_t number(const std::string& text) { return evaluate(text); }

// "a+b=c" and "a+b=c+d=e": each part equals the next one's left side.
void check_equalities(const std::string& text) {
  const std::vector<std::string> parts = split(text, "=");
  REQUIRE(parts.size() >= 2);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::string left = parts[i];
    const std::string right = parts[i + 1].substr(0, parts[i + 1].find_first_of("+-*/"));
    CHECK(evaluate(left) == number(right));
  }
}

// "equalities>result so far;...": the results are suffixes of `value`.
void check_columns(const std::string& trace, int64_t value) {
  const std::string digits = std::to_string(value);
  const std::vector<std::string> columns = split(trace, ";");
  for (size_t i = 0; i < columns.size(); ++i) {
    const std::vector<std::string> sides = split(columns[i], ">");
    REQUIRE(sides.size() == 2);
    check_equalities(sides[0]);
    CHECK(digits.ends_with(sides[1]));
    if (i + 1 == columns.size()) CHECK(digits == sides[1]);
  }
}

void check_multiplication(const Problem& p) {
  const std::vector<std::string> factors = split(p.prompt.substr(0, p.prompt.find('=')), "*");
  const int64_t left = number(factors[0]), right = number(factors[1]);
  CHECK(number(p.answer) == left * right);
  const std::vector<std::string> parts = split(p.thinking, "|");
  const size_t rows = factors[1].size();
  REQUIRE(parts.size() == (rows == 1 ? 1 : rows + 2));
  for (size_t i = 0; i < rows; ++i)
    check_columns(parts[i], left * (factors[1][rows - 1 - i] - '0'));
  if (rows == 1) return;
  CHECK(evaluate(parts[rows]) == left * right);
  check_columns(parts[rows + 1], left * right);
}

void check_mod(const Problem& p) {
  const int64_t modulus = number(p.prompt.substr(4, p.prompt.find(':') - 4));
  std::vector<std::string> steps = split(p.prompt.substr(p.prompt.find(' ', 4) + 1), ",");
  steps.back().resize(steps.back().size() - 2);
  const std::vector<std::string> trace = split(p.thinking, ";");
  REQUIRE(trace.size() + 1 == steps.size());
  std::string value = steps[0];
  for (size_t i = 0; i < trace.size(); ++i) {
    const bool minus = steps[i + 1][0] == '-';
    const std::string left = std::to_string(number(value) + (minus ? modulus : 0));
    CHECK(trace[i].starts_with(left + steps[i + 1] + "="));
    const std::vector<std::string> sides = split(trace[i], ">");
    check_equalities(sides[0]);
    const int64_t result = number(split(sides[0], "=")[1]) % modulus;
    if (modulus != 10) CHECK(number(sides.at(1)) == result);
    value = std::to_string(result);
  }
  CHECK(value == p.answer);
}

void check_gcd(const Problem& p) {
  const std::vector<std::string> given = split(p.prompt.substr(4), ",");
  int64_t a = number(given[0]), b = number(given[1]);
  for (const std::string& step : split(p.thinking, ";")) {
    if (a < b) std::swap(a, b);
    CHECK(step.starts_with(std::to_string(a) + "-" + std::to_string(b) + "="));
    check_equalities(step);
    a -= b;
  }
  CHECK(a == 0);
  CHECK(number(p.answer) == b);
}

void check_sort(const Problem& p, const std::string& item, const std::string& named,
                const std::string& step) {
  std::vector<std::string> values = split(p.prompt.substr(5), item);
  const std::vector<std::string> steps = split(p.thinking, step);
  REQUIRE(steps.size() == values.size());
  const auto less = [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::vector<std::string> sides = split(steps[i], named);
    CHECK(sides[0] == values[i]);
    std::vector<std::string> expected(values.begin(),
                                      values.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    std::sort(expected.begin(), expected.end(), less);
    CHECK(split(sides[1], item) == expected);
    if (i + 1 == steps.size()) CHECK(p.answer == sides[1]);
  }
}

void check_string_edit(const Problem& p) {
  const std::vector<std::string> words = split(p.prompt, " ");
  std::string row, expected;
  const size_t from = words[0] == "replace" ? 5 : words[0] == "rotate" ? 2 : 1;
  for (size_t i = from; i < words.size(); ++i) row += words[i];
  if (words[0] == "reverse") expected.assign(row.rbegin(), row.rend());
  if (words[0] == "rotate") {
    const size_t turns = static_cast<size_t>(number(words[1]));
    expected = row.substr(turns) + row.substr(0, turns);
  }
  for (const char c : row) {
    if (words[0] == "dedup" && expected.find(c) == std::string::npos) expected += c;
    if (words[0] == "replace") expected += c == words[1][0] ? words[3][0] : c;
    if (words[0] == "uppercase") expected += static_cast<char>(c - 32);
  }
  std::string answer = p.answer;
  std::erase(answer, ' ');
  CHECK(answer == expected);
  CHECK(p.thinking.ends_with(p.answer));
  if (words[0] == "rotate") return;
  const std::vector<std::string> steps = split(p.thinking, " ; ");
  REQUIRE(steps.size() == row.size());
  for (size_t i = 0; i < steps.size(); ++i) CHECK(steps[i][0] == row[i]);
}

// "a/b+c/d=?": all statements hold, and the answer has the value by cross-multiplication.
void check_fractions(const Problem& p) {
  std::string prompt = p.prompt.substr(0, p.prompt.find('='));
  const size_t op = prompt.find_first_of("+-*");
  const auto parts = [](const std::string& fraction) {
    const std::vector<std::string> two = split(fraction, "/");
    return std::pair(number(two[0]), number(two[1]));
  };
  const auto [a, b] = parts(prompt.substr(0, op));
  const auto [c, d] = parts(prompt.substr(op + 1));
  const bool minus = p.answer[0] == '-';
  const auto [top, bottom] = parts(p.answer.substr(minus));
  const int64_t want = prompt[op] == '*'   ? a * c
                       : prompt[op] == '+' ? a * d + c * b
                                           : a * d - c * b;
  CHECK((minus ? -top : top) * b * d == want * bottom);
  CHECK(top != 0);
  for (const std::string& step : split(p.thinking, ";"))
    if (step.find("=-") == std::string::npos) check_equalities(step);
}

// Only moves between open neighbour cells, every pointer one nearer to the goal, the walk is the
// answer.
void check_maze(const Problem& p) {
  const std::vector<std::string> rows = split(p.prompt.substr(5), "/");
  const auto cell = [&](const std::string& name) {
    return rows.at(static_cast<size_t>(name[0] - '0')).at(static_cast<size_t>(name[1] - '0'));
  };
  const std::vector<std::string> parts = split(p.thinking, "|");
  REQUIRE(parts.size() == 2);
  std::map<std::string, std::string> next;
  for (const std::string& pointer : split(parts[0], ";")) {
    const std::vector<std::string> ends = split(pointer, ">");
    CHECK(cell(ends[0]) != '1');
    CHECK(std::abs(ends[0][0] - ends[1][0]) + std::abs(ends[0][1] - ends[1][1]) == 1);
    CHECK((cell(ends[1]) == '3' || next.contains(ends[1])));
    next[ends[0]] = ends[1];
  }
  std::string moves;
  for (size_t i = 0; i + 2 < parts[1].size(); i += 3) {
    const std::string here = parts[1].substr(i, 2), there = parts[1].substr(i + 3, 2);
    CHECK(next[here] == there);
    const char move = parts[1][i + 2];
    CHECK(there[0] - here[0] == (move == 'D') - (move == 'U'));
    CHECK(there[1] - here[1] == (move == 'R') - (move == 'L'));
    moves += (moves.empty() ? "" : " ") + std::string(1, move);
  }
  CHECK(cell(parts[1].substr(0, 2)) == '2');
  CHECK(cell(parts[1].substr(parts[1].size() - 2)) == '3');
  CHECK(moves == p.answer);
}

void check_countdown(const Problem& p) {
  const std::string target = split(p.prompt, " ")[1];
  const std::vector<std::string> parts = split(p.thinking, "|");
  if (parts.size() == 3) check_equalities(parts[0]);
  const std::vector<std::string> tries = split(parts.back(), ";");
  for (size_t i = 0; i < tries.size(); ++i) {
    const std::vector<std::string> sides = split(tries[i], ":");
    check_equalities(sides[0]);
    if (sides.size() == 1) continue;
    for (const std::string& statement : split(sides[1], ",")) {
      check_equalities(statement);
      const bool hit = split(statement, "=")[1] == target;  // only the very last one
      CHECK(hit == (p.thinking.ends_with(statement) && i + 1 == tries.size() &&
                    sides[1].ends_with(statement)));
    }
  }
}

void check_thinking(const Problem& p) {
  if (p.family == "addition") {
    const std::string sum = p.prompt.substr(0, p.prompt.find('='));
    CHECK(number(p.answer) == evaluate(sum));
    check_columns(p.thinking, evaluate(sum));
  } else if (p.family == "multiplication") {
    check_multiplication(p);
  } else if (p.family == "mod10" || p.family == "modn") {
    check_mod(p);
  } else if (p.family == "gcd") {
    check_gcd(p);
  } else if (p.family == "sort_numbers") {
    check_sort(p, ",", ">", ";");
  } else if (p.family == "sort_letters") {
    check_sort(p, " ", " > ", " ; ");
  } else if (p.family == "string_edit") {
    check_string_edit(p);
  } else if (p.family == "maze") {
    check_maze(p);
  } else if (p.family == "countdown") {
    check_countdown(p);
  } else if (p.family == "fractions") {
    check_fractions(p);
  } else {
    FAIL("no check for ", p.family);
  }
}

}  // namespace

TEST_CASE("all statements in the thinking of every family are true and lead to the answer") {
  for (const FamilyEntry& family : families()) {
    for (int difficulty = 1; difficulty <= family.max_difficulty; ++difficulty) {
      for (uint64_t i = 0; i < 200; ++i) {
        Rng rng(21, family.name, i);
        const Problem p = make_problem(family.name, rng, difficulty);
        INFO(p.family << " " << p.prompt << " <" << p.thinking << "> " << p.answer);
        check_thinking(p);
      }
    }
  }
}

TEST_CASE("problems are a function of their stream, and streams differ") {
  for (const FamilyEntry& family : families()) {
    std::set<std::string> prompts;
    for (uint64_t i = 0; i < 50; ++i) {
      Rng a(5, "t", i), b(5, "t", i);
      const Problem p = make_problem(family.name, a, family.max_difficulty);
      CHECK(p == make_problem(family.name, b, family.max_difficulty));
      prompts.insert(p.prompt);
    }
    CHECK(prompts.size() > 45);
  }
}

TEST_CASE("prompts, answers and thinking stay short") {
  for (const FamilyEntry& family : families()) {
    for (int difficulty = 1; difficulty <= family.max_difficulty; ++difficulty) {
      size_t longest = 0;
      for (uint64_t i = 0; i < 200; ++i) {
        Rng rng(6, "t", i);
        const Problem p = make_problem(family.name, rng, difficulty);
        CHECK(p.prompt.size() <= 48);
        CHECK(p.answer.size() <= 40);
        longest = std::max(longest, p.thinking.size());
      }
      CHECK(longest <= 260);
    }
  }
}

TEST_CASE("the held-out part is about two percent, disjoint, and blind to the order of a sum") {
  int64_t held = 0;
  for (uint64_t i = 0; i < 5000; ++i) {
    Rng rng(7, "t", i);
    held += held_out(make_problem("addition", rng, 4));
  }
  CHECK(held > 60);
  CHECK(held < 150);
  for (int a = 10; a < 60; ++a) {
    Problem p, q;
    p.family = q.family = "multiplication";
    p.prompt = std::to_string(a) + "*73=?";
    q.prompt = "73*" + std::to_string(a) + "=?";
    CHECK(held_out(p) == held_out(q));
  }
  Rng rng(8, "t");
  for (const FamilyEntry& family : families()) {
    CHECK(held_out(make_problem(family.name, rng, 1, Split::kHeldOut)));
    CHECK_FALSE(held_out(make_problem(family.name, rng, 1, Split::kTrain)));
  }
}

TEST_CASE("unknown families and difficulties out of range are clear errors") {
  Rng rng(1, "t");
  try {
    make_problem("additon", rng, 1);
    FAIL("accepted");
  } catch (const Error& error) {
    CHECK(error.hint().find("addition") != std::string::npos);
  }
  CHECK_THROWS_AS(make_problem("addition", rng, 0), Error);
  CHECK_THROWS_AS(make_problem("addition", rng, 7), Error);
}

}  // namespace fathom
