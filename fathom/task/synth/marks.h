// What a judge learns from: answers of all kinds to problems of sorting letters, each with the
// marks that an exact checker gives to the items of the problem's own rubric, some of them wrong on
// purpose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/base/rng.h"
#include "fathom/task/reward/rubric.h"
#include "fathom/task/synth/problem.h"

namespace fathom {

struct MarkOptions {
  std::string output;
  int64_t seed = 1;
  std::string family = "sort_letters";
  int64_t records = 10000, tasks = 2000, held_out_tasks = 500;
  double wrong_mark_share = 0.05;

  void fields(OptionSet& o) {
    o.add("output", &output, "folder for marks.jsonl, tasks.jsonl and held_out.jsonl");
    o.add("seed", &seed, "random seed");
    o.add("family", &family, "sort_letters[:LOW-HIGH]");
    o.add("records", &records, "marked answers, as chats for fine-tuning");
    o.add("tasks", &tasks, "problems with their rubric, to learn from");
    o.add("held_out_tasks", &held_out_tasks, "the same for evaluation");
    o.add("wrong_mark_share", &wrong_mark_share, "chance of every mark to be wrong");
  }
};

// That the letters ascend, which a judge decides, and by rules that each letter of the question is
// there and that there are no more: an answer is right just when every item is met. The judge's
// items come first. Throws Error for other families.
std::vector<RubricItem> sorting_rubric(const Problem& problem);
// Whether the answer meets each item of that rubric, in its order.
std::vector<bool> sorting_marks(const Problem& problem, const std::string& answer);
// An answer of a random kind, about a third of them right: mistakes in order, in letters, in both.
std::string odd_answer(const Problem& problem, Rng& rng);

// A judge's conversation about `answer`, whose verdict has the exact marks, each turned with
// probability `wrong_mark_share`. One JSON line as in a file of chats.
std::string mark_line(const Problem& problem, const std::string& answer, double wrong_mark_share,
                      Rng& rng);

// Writes the three files; a record is a pure function of (seed, index). Throws Error for families
// without a rubric and options out of range.
void make_marks(const MarkOptions& options);

}  // namespace fathom
