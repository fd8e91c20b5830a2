// The V3.2 encoding: thinking in tool use, calls as DSML blocks.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/python_json.h"

namespace fathom {
namespace {

[[noreturn]] void wrong(size_t index, std::string_view message, const char* hint = "") {
  throw Error(Code::kInvalidArgument, fmt::format("message {}: {}", index, message), hint);
}

class Renderer {
 public:
  Renderer(std::span<const Message> context, std::span<const Message> messages,
           const ChatOptions& options, const ChatTemplate& words, SegmentWriter& out)
      : options_(options), words_(words), out_(out), first_(context.size()) {
    all_.assign(context.begin(), context.end());
    all_.insert(all_.end(), messages.begin(), messages.end());
    keep_ = kept_thoughts(all_, options);
    last_user_ = last_user_message(all_);
  }

  void run() {
    for (size_t i = first_; i < all_.size(); ++i) {
      switch (all_[i].role) {
        case Role::kSystem:
          system(all_[i]);
          break;
        case Role::kUser:
          user(i);
          break;
        case Role::kDeveloper:
          developer(i);
          break;
        case Role::kAssistant:
          assistant(i);
          break;
        case Role::kTool:
          tool(i);
          break;
      }
    }
  }

 private:
  // "\n\n" and the block, for tools and for a response format.
  void tools_and_format(const Message& m) {
    if (!m.tools.empty()) {
      out_.markup("\n\n");
      out_.markup(words_.tools_preamble);
      const char* line = "";
      for (const Json& function : m.tools) {
        out_.plain(line + python_dump(function));
        line = "\n";
      }
      out_.markup("\n</functions>\n");
    }
    if (m.response_format) {
      out_.markup("\n\n");
      out_.markup(words_.response_format_preamble);
      out_.plain(python_dump(*m.response_format));
    }
  }

  void system(const Message& m) {
    out_.plain(m.content);
    tools_and_format(m);
  }

  void user(size_t i) {
    out_.markup(kUserText);
    out_.plain(all_[i].content);
    out_.markup(kAssistantText);
    open_turn(i);
  }

  void developer(size_t i) {
    const Message& m = all_[i];
    if (m.content.empty()) wrong(i, "a developer message needs content");
    out_.markup(kUserText);
    tools_and_format(m);
    out_.markup("\n\n# The user's message is: ");
    out_.plain(m.content);
    out_.markup(kAssistantText);
    open_turn(i);
  }

  // Message i ends where the model goes on: the tag says whether a thought follows.
  void open_turn(size_t i) {
    const bool answered = i + 1 < all_.size() && all_[i + 1].role == Role::kAssistant;
    const bool think =
        answered ? keep_[i + 1]
                 : options_.mode == ThinkMode::kThinking && static_cast<int64_t>(i) >= last_user_;
    out_.markup(think ? kThinkText : kEndThinkText);
  }

  void assistant(size_t i) {
    const Message& m = all_[i];
    const bool unfinished = m.prefix && i + 1 == all_.size();
    out_.set_generated(true);
    if (keep_[i]) {
      if (m.reasoning_content.empty() && m.tool_calls.empty() && !unfinished &&
          static_cast<int64_t>(i) > last_user_)
        wrong(i, "a thinking turn needs reasoning_content or tool_calls",
              "pass the reasoning_content of the answer back, or use the chat mode");
      out_.plain(m.reasoning_content);
      if (!unfinished || !m.content.empty()) out_.markup(kEndThinkText);
    }
    out_.plain(m.content);
    if (!m.tool_calls.empty()) calls(i);
    if (!unfinished) out_.markup(kEosText);
    out_.set_generated(false);
  }

  void calls(size_t i) {
    const std::string d(kDsmlText);
    out_.markup("\n\n<" + d + words_.calls_block + ">\n");
    for (const ToolCall& call : all_[i].tool_calls) {
      out_.markup("<" + d + "invoke name=\"");
      out_.plain(call.name);
      out_.markup("\">\n");
      arguments(i, call);
      out_.markup("\n</" + d + "invoke>\n");
    }
    out_.markup("</" + d + words_.calls_block + ">");
  }

  void arguments(size_t i, const ToolCall& call) {
    const std::string d(kDsmlText);
    const Json object = call_arguments(call, i);
    const char* line = "";
    for (size_t k = 0; k < object.members().size(); ++k) {
      const auto& [key, value] = object.members()[k];
      if (object.find(key) != &value) continue;  // of equal keys the last one
      out_.markup(line);
      out_.markup("<" + d + "parameter name=\"");
      out_.plain(key);
      out_.markup(value.is_string() ? "\" string=\"true\">" : "\" string=\"false\">");
      out_.plain(value.is_string() ? value.as_string() : python_dump(value));
      out_.markup("</" + d + "parameter>");
      line = "\n";
    }
  }

  void tool(size_t i) {
    size_t caller = i;
    while (caller > 0 && all_[caller].role == Role::kTool) --caller;
    if (all_[caller].role != Role::kAssistant)
      wrong(i, "a tool result needs an assistant message with tool_calls before it");
    const size_t order = i - caller, expected = all_[caller].tool_calls.size();
    if (order > expected)
      wrong(i, fmt::format("tool result {} of an assistant message with {} tool_calls", order,
                           expected));
    if (order == 1) out_.markup("\n\n<function_results>");
    out_.markup("\n<result>");
    out_.plain(all_[i].content);
    out_.markup("</result>");
    if (order < expected) return;
    out_.markup("\n</function_results>\n\n");
    open_turn(i);
  }

  const ChatOptions& options_;
  const ChatTemplate& words_;
  SegmentWriter& out_;
  std::vector<Message> all_;
  std::vector<bool> keep_;
  size_t first_;
  int64_t last_user_;
};

}  // namespace

void render_v32(std::span<const Message> context, std::span<const Message> messages,
                const ChatOptions& options, const ChatTemplate& words, SegmentWriter& out) {
  Renderer(context, messages, options, words, out).run();
}

}  // namespace fathom
