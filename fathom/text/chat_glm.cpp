// The encoding of GLM-4.7-Flash and GLM-5: calls as keys and values between tags.
#include <fmt/core.h>

#include "fathom/text/call_builder.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/python_json.h"

namespace fathom {
namespace {

class Renderer {
 public:
  Renderer(std::span<const Message> messages, const ChatOptions& options, const ChatTemplate& words,
           SegmentWriter& out)
      : messages_(messages),
        options_(options),
        words_(words),
        out_(out),
        keep_(kept_thoughts(messages, options)) {}

  void run() {
    if (options_.add_bos) out_.markup(std::string(kGmaskText) + std::string(kSopText));
    if (!words_.reasoning_effort.empty()) {
      out_.markup(kGlmSystemText);
      out_.plain("Reasoning Effort: " + words_.reasoning_effort);
    }
    for (const Message& m : messages_)
      if (!m.tools.empty()) tools(m);
    for (size_t i = 0; i < messages_.size(); ++i) message(i);
    if (!messages_.empty() && messages_.back().role != Role::kAssistant) {
      out_.markup(kGlmAssistantText);
      out_.markup(options_.mode == ThinkMode::kThinking ? std::string(kThinkText)
                                                        : words_.no_thought);
    }
  }

 private:
  void tools(const Message& m) {
    out_.markup(kGlmSystemText);
    out_.markup(words_.tools_preamble);
    for (const Json& function : m.tools) {
      const Json whole = Json::object({{"type", Json::string("function")}, {"function", function}});
      out_.plain(python_dump(words_.bare_functions ? function : whole) + "\n");
    }
    out_.markup(words_.tools_tail);
  }

  void message(size_t i) {
    const Message& m = messages_[i];
    switch (m.role) {
      case Role::kAssistant:
        assistant(i);
        return;
      case Role::kTool:
        check_has_call(messages_, i);
        if (messages_[i - 1].role != Role::kTool) out_.markup(kGlmObservationText);
        out_.markup(kResponseText);
        out_.plain(m.content);
        out_.markup(kEndResponseText);
        return;
      case Role::kUser:
        out_.markup(kGlmUserText);
        break;
      default:
        if (m.content.empty() && !m.tools.empty()) return;  // it only carries tools
        out_.markup(kGlmSystemText);
    }
    out_.plain(m.content);
  }

  void assistant(size_t i) {
    const Message& m = messages_[i];
    const bool unfinished = m.prefix && i + 1 == messages_.size();
    const bool thought = keep_[i] && (!m.reasoning_content.empty() || unfinished);
    out_.markup(kGlmAssistantText);
    if (thought) out_.markup(kThinkText);
    out_.set_generated(thought);
    if (thought) {
      out_.plain(m.reasoning_content);
      if (!unfinished || !m.content.empty()) out_.markup(kEndThinkText);
    } else {
      out_.markup(words_.no_thought);
    }
    out_.set_generated(true);
    out_.plain(trim_blanks(m.content));
    for (const ToolCall& call : m.tool_calls) {
      out_.markup(kGlmCallText);
      out_.plain(call.name);
      arguments(i, call);
      out_.markup(kGlmEndCallText);
    }
    out_.set_generated(false);
  }

  void arguments(size_t i, const ToolCall& call) {
    const Json object = call_arguments(call, i);
    for (const auto& [key, value] : object.members()) {
      if (object.find(key) != &value) continue;  // of equal keys the last one
      out_.markup(kArgKeyText);
      out_.plain(key);
      out_.markup(std::string(kEndArgKeyText) + std::string(kArgValueText));
      out_.plain(value.is_string() ? value.as_string() : python_dump(value));
      out_.markup(kEndArgValueText);
    }
  }

  std::span<const Message> messages_;
  const ChatOptions& options_;
  const ChatTemplate& words_;
  SegmentWriter& out_;
  std::vector<bool> keep_;
};

}  // namespace

void render_glm(std::span<const Message> messages, const ChatOptions& options,
                const ChatTemplate& words, SegmentWriter& out) {
  Renderer(messages, options, words, out).run();
}

}  // namespace fathom
