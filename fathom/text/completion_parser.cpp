#include "fathom/text/completion_parser.h"

#include <fmt/core.h>

#include <initializer_list>

#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

class Parser {
 public:
  Parser(std::string_view text, std::string_view block) : text_(text) {
    const std::string d(kDsmlText);
    calls_ = "\n\n<" + d + std::string(block);
    calls_end_ = "</" + d + std::string(block) + ">";
    invoke_ = "<" + d + "invoke";
    invoke_end_ = "</" + d + "invoke";
    parameter_ = "<" + d + "parameter";
    parameter_end_ = "/" + d + "parameter";
  }

  Completion run(ThinkMode mode) {
    Completion out;
    if (mode == ThinkMode::kThinking) {
      out.reasoning_content = until({kEndThinkText, calls_});
      if (stop_ != kEndThinkText) fail("the thought", "</think> at its end");
    }
    out.content = until({kEosText, calls_});
    if (stop_.empty()) fail("the content", "an end of sentence or a block of calls");
    if (stop_ == calls_) {
      calls(out);
      if (!until({kEosText}).empty()) fail("the calls", "nothing after the block");
    }
    if (at_ != text_.size()) fail("the completion", "nothing after the end of sentence");
    for (const std::string* part : {&out.content, &out.reasoning_content})
      for (const std::string_view marker :
           {kBosText, kEosText, kThinkText, kEndThinkText, kDsmlText})
        if (part->find(marker) != part->npos)
          fail(part == &out.content ? "the content" : "the thought",
               fmt::format("no {} inside", marker));
    return out;
  }

 private:
  [[noreturn]] void fail(std::string_view part, std::string_view expected) const {
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected {}, at byte {}", part, expected, at_));
  }

  // The text up to the earliest of `stops`, and steps behind it. stop_ is empty when none is left.
  std::string_view until(std::initializer_list<std::string_view> stops) {
    size_t best = text_.npos;
    stop_ = {};
    for (const std::string_view stop : stops) {
      const size_t at = text_.find(stop, at_);
      if (at < best) {
        best = at;
        stop_ = stop;
      }
    }
    const std::string_view out = text_.substr(at_, best == text_.npos ? best : best - at_);
    at_ += out.size() + stop_.size();
    return out;
  }

  void calls(Completion& out) {
    for (;;) {
      const std::string_view gap = until({invoke_, calls_end_});
      if (stop_.empty() || gap != ">\n") fail("the calls", "an invoke or the end of the block");
      if (stop_ == calls_end_) return;
      out.tool_calls.push_back(invoke());
    }
  }

  ToolCall invoke() {
    ToolCall call{.name = call_name(until({parameter_, invoke_end_}))};
    std::vector<std::string> keys;
    std::string arguments;
    while (stop_ == parameter_) {
      const std::string_view body = until({parameter_end_});
      if (stop_.empty()) fail("a parameter", "its end");
      const auto [key, value] = parameter(body);
      for (const std::string& seen : keys)
        if (seen == key) fail("a parameter", fmt::format("\"{}\" only once", key));
      arguments += (keys.empty() ? "" : ", ") + json_quote(key) + ": " + value;
      keys.push_back(key);
      if (until({parameter_, invoke_end_}) != ">\n") fail("a parameter", "a line end behind it");
    }
    if (stop_ != invoke_end_) fail("a call", "its end");
    call.arguments = "{" + arguments + "}";
    return call;
  }

  // Blanks, name="...", > and line ends.
  std::string call_name(std::string_view head) const {
    const size_t start = head.find_first_not_of(" \t\r\n");
    if (start != head.npos) head.remove_prefix(start);
    const size_t end = head.find_last_not_of('\n');
    const bool lines = end != head.npos && end + 1 < head.size();
    head = head.substr(0, end == head.npos ? 0 : end + 1);
    constexpr std::string_view kOpen = "name=\"", kClose = "\">";
    if (!lines || !head.starts_with(kOpen) || !head.ends_with(kClose) ||
        head.size() < kOpen.size() + kClose.size())
      fail("a call", "its name");
    head = head.substr(kOpen.size(), head.size() - kOpen.size() - kClose.size());
    if (head.find('\n') != head.npos) fail("a call", "its name on one line");
    return std::string(head);
  }

  // ` name="KEY" string="true|false">VALUE<` to the key and the value as JSON.
  std::pair<std::string, std::string> parameter(std::string_view body) const {
    constexpr std::string_view kOpen = " name=\"", kTrue = "\" string=\"true\">",
                               kFalse = "\" string=\"false\">";
    const size_t at = std::min(body.find(kTrue), body.find(kFalse));
    if (!body.starts_with(kOpen) || at == body.npos || at < kOpen.size() || !body.ends_with('<'))
      fail("a parameter", "name, string and a value");
    const bool text = body.substr(at).starts_with(kTrue);
    const size_t begin = at + (text ? kTrue.size() : kFalse.size());
    if (begin > body.size() - 1) fail("a parameter", "a value");
    const std::string value(body.substr(begin, body.size() - 1 - begin));
    return {std::string(body.substr(kOpen.size(), at - kOpen.size())),
            text ? json_quote(value) : value};
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string_view stop_;
  std::string calls_, calls_end_, invoke_, invoke_end_, parameter_, parameter_end_;
};

}  // namespace

Result<Completion> parse_completion(std::string_view text, ThinkMode mode,
                                    std::string_view calls_block) {
  try {
    return Parser(text, calls_block).run(mode);
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    return e;
  }
}

}  // namespace fathom
