#include "fathom/cli/chat_screen.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

namespace fathom {
namespace {

using Kind = StreamEvent::Kind;

// What the screen prints for an answer with a thought, content and a call.
std::string shown(bool terminal, bool folded) {
  FILE* file = std::tmpfile();
  REQUIRE(file);
  ChatScreen screen(file, terminal);
  screen.folded = folded;
  for (const StreamEvent& e :
       {StreamEvent{Kind::kReasoning, 0, "H\xC3\xA9"}, StreamEvent{Kind::kReasoning, 0, "m."},
        StreamEvent{Kind::kContent, 0, "Four"}, StreamEvent{Kind::kContent, 0, "."},
        StreamEvent{Kind::kCallBegin, 0, "add"}, StreamEvent{Kind::kCallArguments, 0, "{}"},
        StreamEvent{Kind::kCallEnd}})
    screen.put(e);
  screen.end();
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  CHECK(std::fread(text.data(), 1, text.size(), file) == text.size());
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("a pipe gets plain text: thought, answer and calls with a blank line between") {
  CHECK(shown(false, false) == "H\xC3\xA9m.\n\nFour.\n\ncall add {}\n");
}

TEST_CASE("a folded thought is one line that counts characters") {
  CHECK(shown(false, true) == "[a thought of 4 characters]\n\nFour.\n\ncall add {}\n");
}

TEST_CASE("a terminal shows thoughts dimmed, and every style is ended") {
  const std::string text = shown(true, false);
  CHECK(text.starts_with("\x1b[2mH\xC3\xA9m.\x1b[0m\n\nFour."));
  CHECK(text.ends_with("\x1b[0m\n"));
  const std::string folded = shown(true, true);
  CHECK(folded.find("[thinking, 2 characters]") != folded.npos);
  CHECK(folded.find("\r\x1b[K[a thought of 4 characters]\x1b[0m\n\nFour.") != folded.npos);
}

}  // namespace fathom
