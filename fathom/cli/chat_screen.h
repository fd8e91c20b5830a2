// How an answer looks while it comes: thoughts dimmed or folded to one line, then the answer, then
// the calls.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "fathom/cli/conversation.h"

namespace fathom {

class ChatScreen final : public ChatSink {
 public:
  // `terminal`: colours and lines that are drawn again; else plain text.
  ChatScreen(FILE* out, bool terminal) : out_(out), terminal_(terminal) {}

  bool folded = false;  // a thought is one line that says how long it is

  void put(const StreamEvent& event) override;
  void end();  // of an answer
  // Text in the style of thoughts, for what is not the answer.
  void print_dim(std::string_view text);

 private:
  enum class Part : uint8_t { kNothing, kThought, kContent, kCall };
  void enter(Part part);
  void put_thought(std::string_view text);
  void style(std::string_view code);

  FILE* out_;
  bool terminal_;
  Part part_ = Part::kNothing;
  size_t thought_bytes_ = 0;
};

}  // namespace fathom
