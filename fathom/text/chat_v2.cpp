// The encoding of DeepSeek-V2 and V2-Lite: roles are words, not tokens; no thoughts, no tools.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {

void render_v2(std::span<const Message> messages, const ChatOptions&, SegmentWriter& out) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& m = messages[i];
    if (!m.tools.empty() || !m.tool_calls.empty() || m.role == Role::kTool)
      throw Error(Code::kInvalidArgument,
                  fmt::format("message {}: the V2 format has no place for tools", i),
                  "leave them out, or choose another --format");
    switch (m.role) {
      case Role::kSystem:
        out.plain(m.content);
        out.markup("\n\n");
        break;
      case Role::kAssistant: {
        out.markup("Assistant:");
        out.set_generated(true);
        // An answer of the model begins with this blank already.
        if (!m.content.starts_with(' ')) out.plain(" ");
        out.plain(m.content);
        if (!m.prefix || i + 1 < messages.size()) out.markup(kEosText);
        out.set_generated(false);
        break;
      }
      default:
        out.markup("User: ");
        out.plain(m.content);
        out.markup("\n\n");
    }
  }
  if (!messages.empty() && messages.back().role != Role::kAssistant) out.markup("Assistant:");
}

}  // namespace fathom
