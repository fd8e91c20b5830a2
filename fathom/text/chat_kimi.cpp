// The encoding of Moonlight, Kimi-K2 and Kimi-K2-Thinking.
#include <fmt/core.h>

#include "fathom/base/error.h"
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
    for (const Message& m : messages_)
      if (!m.tools.empty()) tools(m);
    const bool has_system =
        !messages_.empty() && messages_[0].role == Role::kSystem && !only_tools(messages_[0]);
    if (!has_system && !words_.default_system.empty()) {
      begin(kImSystemText, "system");
      out_.plain(words_.default_system);
      out_.markup(kImEndText);
    }
    for (size_t i = 0; i < messages_.size(); ++i) message(i);
    if (!messages_.empty() && messages_.back().role != Role::kAssistant) {
      begin(kImAssistantText, "assistant");
      // The model opens a thought by itself; this is how one is left out.
      if (thinks() && options_.mode == ThinkMode::kChat) no_thought();
    }
  }

 private:
  static bool only_tools(const Message& m) { return m.content.empty() && !m.tools.empty(); }
  bool thinks() const { return options_.format == ChatFormat::kKimiThinking; }

  void begin(std::string_view marker, std::string_view name) {
    out_.markup(marker);
    out_.plain(name);
    out_.markup(kImMiddleText);
  }
  void no_thought() { out_.markup(std::string(kThinkText) + std::string(kEndThinkText)); }

  void tools(const Message& m) {
    Json all = Json::array();
    for (const Json& function : m.tools)
      all.push(Json::object({{"type", Json::string("function")}, {"function", function}}));
    begin(kImSystemText, "tool_declare");
    out_.plain(words_.compact_tools ? all.dump(0) : python_dump(all));
    out_.markup(kImEndText);
  }

  void message(size_t i) {
    const Message& m = messages_[i];
    switch (m.role) {
      case Role::kAssistant:
        assistant(i);
        return;
      case Role::kTool:
        result(i);
        return;
      case Role::kUser:
        begin(kImUserText, "user");
        break;
      default:
        if (only_tools(m)) return;
        begin(kImSystemText, "system");
    }
    out_.plain(m.content);
    out_.markup(kImEndText);
  }

  void assistant(size_t i) {
    const Message& m = messages_[i];
    const bool unfinished = m.prefix && i + 1 == messages_.size();
    begin(kImAssistantText, "assistant");
    out_.set_generated(true);
    if (thinks()) {
      if (!keep_[i] || (m.reasoning_content.empty() && !unfinished)) {
        no_thought();
      } else {
        out_.markup(kThinkText);
        out_.plain(m.reasoning_content);
        if (!unfinished || !m.content.empty()) out_.markup(kEndThinkText);
      }
    }
    out_.plain(m.content);
    if (!m.tool_calls.empty()) {
      out_.markup(kSectionBeginText);
      for (size_t k = 0; k < m.tool_calls.size(); ++k) {
        out_.markup(kKimiCallBeginText);
        out_.plain(call_id(i, k));
        out_.markup(kKimiArgumentsText);
        out_.plain(m.tool_calls[k].arguments);
        out_.markup(kKimiCallEndText);
      }
      out_.markup(kSectionEndText);
    }
    if (!unfinished) out_.markup(kImEndText);
    out_.set_generated(false);
  }

  // The form that the model knows; ids of other servers become it.
  std::string call_id(size_t message, size_t call) const {
    const ToolCall& c = messages_[message].tool_calls[call];
    return c.id.starts_with("functions.") ? c.id : fmt::format("functions.{}:{}", c.name, call);
  }

  void result(size_t i) {
    check_has_call(messages_, i);
    size_t caller = i;
    while (messages_[caller].role == Role::kTool) --caller;
    const std::vector<ToolCall>& calls = messages_[caller].tool_calls;
    const size_t order = i - caller - 1;
    if (order >= calls.size())
      throw Error(
          Code::kInvalidArgument,
          fmt::format("message {}: tool result {} of an assistant message with {} tool_calls", i,
                      order + 1, calls.size()));
    begin(kImSystemText, calls[order].name);
    out_.plain("## Return of " + call_id(caller, order) + "\n" + messages_[i].content);
    out_.markup(kImEndText);
  }

  std::span<const Message> messages_;
  const ChatOptions& options_;
  const ChatTemplate& words_;
  SegmentWriter& out_;
  std::vector<bool> keep_;
};

}  // namespace

void render_kimi(std::span<const Message> messages, const ChatOptions& options,
                 const ChatTemplate& words, SegmentWriter& out) {
  Renderer(messages, options, words, out).run();
}

}  // namespace fathom
