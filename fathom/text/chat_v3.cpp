// The V3, R1 and V3.1 encodings. They render a whole conversation at once.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/python_json.h"

namespace fathom {
namespace {

class Renderer {
 public:
  Renderer(std::span<const Message> messages, const ChatOptions& options, SegmentWriter& out)
      : messages_(messages),
        options_(options),
        out_(out),
        keep_(kept_thoughts(messages, options)) {}

  void run() {
    systems();
    for (size_t i = 0; i < messages_.size(); ++i) {
      const Message& m = messages_[i];
      switch (m.role) {
        case Role::kSystem:
          break;
        case Role::kDeveloper:
        case Role::kUser:
          out_.markup(kUserText);
          out_.plain(m.content);
          break;
        case Role::kAssistant:
          assistant(i);
          break;
        case Role::kTool:
          tool(i);
          break;
      }
    }
    if (!messages_.empty() && last_user_message(messages_) + 1 == std::ssize(messages_))
      prompt(options_.mode == ThinkMode::kThinking);
  }

 private:
  bool v31() const { return options_.format == ChatFormat::kV31; }

  void systems() {
    const char* gap = "";
    for (const Message& m : messages_) {
      if (m.role != Role::kSystem) continue;
      out_.markup(gap);
      out_.plain(m.content);
      gap = "\n\n";
    }
    for (const Message& m : messages_)
      if (!m.tools.empty()) tools(m);
  }

  // The sections that the model card of V3.1 asks for, in own words.
  void tools(const Message& m) {
    out_.markup("\n\n## Tools\nThe following tools can be called:\n");
    for (const Json& function : m.tools) {
      const Json* description = function.find("description");
      const Json* parameters = function.find("parameters");
      out_.markup("\n### ");
      out_.plain(function.at("name").as_string());
      out_.markup("\nDescription: ");
      if (description && description->is_string()) out_.plain(description->as_string());
      out_.markup("\n\nParameters: ");
      out_.plain(parameters ? python_dump(*parameters) : "{}");
      out_.markup("\n");
    }
    out_.markup(
        "\nIMPORTANT: write every call in exactly this form, with the tool's name and its "
        "arguments as a JSON object, and further calls directly behind:\n");
    out_.markup(std::string(kToolCallsBeginText) + std::string(kToolCallBeginText));
    out_.markup("NAME");
    out_.markup(kToolSepText);
    out_.markup("ARGUMENTS");
    out_.markup(std::string(kToolCallEndText) + std::string(kToolCallsEndText));
  }

  void prompt(bool think) {
    out_.markup(kAssistantText);
    if (v31())
      out_.markup(think ? kThinkText : kEndThinkText);
    else if (think && options_.format == ChatFormat::kR1)
      out_.markup(std::string(kThinkText) + "\n");
  }

  // What stands behind the thought, should the stored content still hold one.
  std::string_view answer_of(const Message& m) const {
    const std::string_view text = m.content;
    const size_t at = v31() ? text.find(kEndThinkText) : text.rfind(kEndThinkText);
    return at == text.npos ? text : text.substr(at + kEndThinkText.size());
  }

  void assistant(size_t i) {
    const Message& m = messages_[i];
    const bool unfinished = m.prefix && i + 1 == messages_.size();
    const bool thought = keep_[i] && options_.format != ChatFormat::kV3 &&
                         (!m.reasoning_content.empty() || unfinished);
    if (i == 0 || messages_[i - 1].role != Role::kTool) prompt(thought);
    out_.set_generated(true);
    if (thought) {
      out_.plain(m.reasoning_content);
      if (!unfinished || !m.content.empty())
        out_.markup(v31() ? std::string(kEndThinkText)
                          : "\n" + std::string(kEndThinkText) + "\n\n");
    }
    out_.plain(answer_of(m));
    if (!m.tool_calls.empty()) calls(m);
    if (!unfinished) out_.markup(kEosText);
    out_.set_generated(false);
  }

  void calls(const Message& m) {
    out_.markup(kToolCallsBeginText);
    const char* gap = "";
    for (const ToolCall& call : m.tool_calls) {
      out_.markup(gap);
      out_.markup(kToolCallBeginText);
      if (v31()) {
        out_.plain(call.name);
        out_.markup(kToolSepText);
        out_.plain(call.arguments);
      } else {
        out_.markup("function");
        out_.markup(kToolSepText);
        out_.plain(call.name);
        out_.markup("\n```json\n");
        out_.plain(call.arguments);
        out_.markup("\n```");
        gap = "\n";
      }
      out_.markup(kToolCallEndText);
    }
    out_.markup(kToolCallsEndText);
  }

  void tool(size_t i) {
    const bool first = i == 0 || messages_[i - 1].role != Role::kTool;
    const bool last = i + 1 == messages_.size() || messages_[i + 1].role != Role::kTool;
    check_has_call(messages_, i);
    if (!v31()) out_.markup(first ? kToolOutputsBeginText : "\n");
    out_.markup(kToolOutputBeginText);
    out_.plain(messages_[i].content);
    out_.markup(kToolOutputEndText);
    if (!v31() && last) out_.markup(kToolOutputsEndText);
  }

  std::span<const Message> messages_;
  const ChatOptions& options_;
  SegmentWriter& out_;
  std::vector<bool> keep_;
};

}  // namespace

void render_v3(std::span<const Message> messages, const ChatOptions& options, SegmentWriter& out) {
  Renderer(messages, options, out).run();
}

}  // namespace fathom
