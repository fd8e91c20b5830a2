// Edits of short letter rows: "reverse a b c", "dedup a b a", "replace a by x in a b a", "uppercase
// a b", "rotate 2 a b c". All but rotate go letter by letter: "letter > output so far"; rotate
// shows the row after each turn.
#include <fmt/core.h>

#include <algorithm>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

using Letters = std::vector<std::string>;

// `take` adds one letter to the output.
template <class Take>
void letter_by_letter(const Letters& row, Problem& problem, Take take) {
  Letters out;
  for (const std::string& letter : row) {
    take(letter, out);
    if (!problem.thinking.empty()) problem.thinking += " ; ";
    problem.thinking += letter + " > " + join(out, " ");
  }
  problem.answer = join(out, " ");
}

void rotate_row(Letters row, int64_t turns, Problem& problem) {
  for (int64_t i = 0; i < turns; ++i) {
    std::rotate(row.begin(), row.begin() + 1, row.end());
    problem.thinking += (i > 0 ? " ; " : "") + join(row, " ");
  }
  problem.answer = join(row, " ");
}

std::string letter_at(int64_t i) { return std::string(1, static_cast<char>('a' + i)); }

}  // namespace

Problem make_string_edit(Rng& rng, int difficulty) {
  enum Edit : uint8_t { kReverse, kDedup, kReplace, kUppercase, kRotate, kNumEdits };
  const Edit edit = static_cast<Edit>(rng.below(kNumEdits));
  const int64_t length = difficulty + 3;
  Letters row;
  // Dedup and replace need letters that come back.
  const std::vector<int64_t> alphabet =
      draw_distinct(rng, edit == kDedup || edit == kReplace ? length / 2 + 1 : 26, 26);
  for (int64_t i = 0; i < length; ++i) {
    row.push_back(letter_at(alphabet[rng.below(alphabet.size())]));
  }
  Problem problem;
  const std::string text = join(row, " ");
  switch (edit) {
    case kReverse:
      problem.prompt = "reverse " + text;
      letter_by_letter(row, problem, [](const std::string& letter, Letters& out) {
        out.insert(out.begin(), letter);
      });
      break;
    case kDedup:
      problem.prompt = "dedup " + text;
      letter_by_letter(row, problem, [](const std::string& letter, Letters& out) {
        if (std::find(out.begin(), out.end(), letter) == out.end()) out.push_back(letter);
      });
      break;
    case kReplace: {
      const std::string from = row[rng.below(row.size())], to = letter_at(rng.range(0, 25));
      problem.prompt = fmt::format("replace {} by {} in {}", from, to, text);
      letter_by_letter(row, problem, [&](const std::string& letter, Letters& out) {
        out.push_back(letter == from ? to : letter);
      });
      break;
    }
    case kUppercase:
      problem.prompt = "uppercase " + text;
      letter_by_letter(row, problem, [](const std::string& letter, Letters& out) {
        out.emplace_back(1, static_cast<char>(letter[0] - 'a' + 'A'));
      });
      break;
    case kRotate:
    case kNumEdits: {
      const int64_t turns = rng.range(1, std::min<int64_t>(3, length - 1));
      problem.prompt = fmt::format("rotate {} {}", turns, text);
      rotate_row(row, turns, problem);
      break;
    }
  }
  return problem;
}

}  // namespace fathom::synth
