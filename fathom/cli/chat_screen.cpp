#include "fathom/cli/chat_screen.h"

#include <fmt/core.h>

namespace fathom {
namespace {

constexpr std::string_view kDim = "\x1b[2m", kBold = "\x1b[1m", kPlain = "\x1b[0m";
constexpr std::string_view kRedraw = "\r\x1b[K";

}  // namespace

void ChatScreen::style(std::string_view code) {
  if (terminal_) fmt::print(out_, "{}", code);
}

// Ends what was being shown and begins another part.
void ChatScreen::enter(Part part) {
  if (part == part_ && part != Part::kCall) return;
  if (part_ == Part::kThought) {
    if (folded)
      fmt::print(out_, "{}[a thought of {} characters]", terminal_ ? kRedraw : "", thought_bytes_);
    style(kPlain);
  }
  if (part_ == Part::kCall) style(kPlain);
  if (part_ != Part::kNothing) std::fputs(part == Part::kNothing ? "\n" : "\n\n", out_);
  part_ = part;
  if (part == Part::kThought) {
    thought_bytes_ = 0;
    style(kDim);
  }
  if (part == Part::kCall) style(kBold);
}

void ChatScreen::put_thought(std::string_view text) {
  for (const char c : text) thought_bytes_ += (c & 0xC0) != 0x80;  // beginnings of characters
  if (!folded)
    fmt::print(out_, "{}", text);
  else if (terminal_)
    fmt::print(out_, "{}[thinking, {} characters]", kRedraw, thought_bytes_);
}

void ChatScreen::put(const StreamEvent& event) {
  switch (event.kind) {
    case StreamEvent::Kind::kReasoning:
      enter(Part::kThought);
      put_thought(event.text);
      break;
    case StreamEvent::Kind::kContent:
      enter(Part::kContent);
      fmt::print(out_, "{}", event.text);
      break;
    case StreamEvent::Kind::kCallBegin:
      enter(Part::kCall);
      fmt::print(out_, "call {} ", event.text);
      break;
    case StreamEvent::Kind::kCallArguments:
      fmt::print(out_, "{}", event.text);
      break;
    case StreamEvent::Kind::kCallEnd:
      break;
  }
  std::fflush(out_);
}

void ChatScreen::end() {
  enter(Part::kNothing);
  std::fflush(out_);
}

void ChatScreen::print_dim(std::string_view text) {
  style(kDim);
  fmt::print(out_, "{}", text);
  style(kPlain);
  std::fflush(out_);
}

}  // namespace fathom
