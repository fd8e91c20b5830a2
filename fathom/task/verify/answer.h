// Exact checks of answers to generated problems (task/synth). They fail closed: malformed text is a
// wrong answer.
#pragma once

#include <string_view>

#include "fathom/task/synth/problem.h"

namespace fathom {

// What follows "</think>"; the whole text when it has no thinking, nothing when thinking begins and
// does not end.
std::string_view final_answer(std::string_view model_text);

// True when the final answer is right. Blanks around it and between its parts do not matter,
// anything else does. A countdown answer is any expression with the target's value that uses each
// number at most once; a maze answer is any shortest path; fractions are right by value; all other
// families have one right answer. Never throws on model text.
bool answer_correct(const Problem& problem, std::string_view model_text);

// The two checkers that compute, for prompts of their family; false when the prompt is malformed.
bool countdown_correct(std::string_view prompt, std::string_view answer);
bool maze_correct(std::string_view prompt, std::string_view answer);

}  // namespace fathom
