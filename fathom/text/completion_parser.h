// The strict parser of V3.2 completions: exactly what the encoding writes, all else is an error.
// For tests, rewards and training data; a server wants the tolerant CompletionStream.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/text/chat_format.h"
#include "fathom/text/message.h"

namespace fathom {

struct Completion {
  std::string content;
  std::string reasoning_content;
  std::vector<ToolCall> tool_calls;
};

// `text` follows the prompt's <think> (thinking) or </think> (chat) and holds its special tokens.
// Arguments with string="false" are taken as they stand, valid JSON or not. The error names the
// part that does not fit.
Result<Completion> parse_completion(std::string_view text, ThinkMode mode,
                                    std::string_view calls_block = "function_calls");

}  // namespace fathom
