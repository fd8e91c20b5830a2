// Any bytes as a conversation in JSON render in every format or give an Error. Any bytes as a
// completion: the strict parser answers or refuses; the tolerant one gives the same for two cuts,
// valid arguments, and no DSML in the content.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/completion_parser.h"
#include "fathom/text/completion_stream.h"
#include "fathom/text/json_repair.h"
#include "fathom/text/utf8.h"

namespace {

using namespace fathom;

void render_all(const std::string& text) {
  std::vector<Message> messages;
  try {
    messages = messages_from_json(Json::parse(text, "input"));
  } catch (const InternalError&) {
    throw;
  } catch (const Error&) {
    return;
  }
  for (const ChatFormat format :
       {ChatFormat::kV3, ChatFormat::kR1, ChatFormat::kV31, ChatFormat::kV32}) {
    for (const ThinkMode mode : {ThinkMode::kChat, ThinkMode::kThinking}) {
      try {
        render_chat({}, messages, {.format = format, .mode = mode}, own_chat_template());
      } catch (const InternalError&) {
        throw;
      } catch (const Error&) {
      }
    }
  }
}

StreamedCompletion stream(std::string_view text, ThinkMode mode, size_t step) {
  CompletionStream parser({.mode = mode});
  for (size_t at = 0; at < text.size(); at += step) parser.feed(text.substr(at, step));
  parser.finish(StreamEnd::kLength);
  return parser.result();
}

void parse_all(const std::string& text) {
  for (const ThinkMode mode : {ThinkMode::kChat, ThinkMode::kThinking}) {
    parse_completion(text, mode).has_value();
    const StreamedCompletion whole = stream(text, mode, std::max<size_t>(1, text.size()));
    const StreamedCompletion bytes = stream(text, mode, 1);
    FM_CHECK(whole.content == bytes.content, "{} and {}", whole.content, bytes.content);
    FM_CHECK(whole.reasoning_content == bytes.reasoning_content, "the thoughts differ");
    FM_CHECK(whole.tool_calls == bytes.tool_calls, "the calls differ");
    FM_CHECK(whole.content.find(kDsmlText) == std::string::npos, "leaks: {}", whole.content);
    for (const ToolCall& call : whole.tool_calls)
      FM_CHECK(Json::parse(call.arguments, "arguments").is_object(), "{}", call.arguments);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  render_all(text);
  parse_all(text);
  if (const auto value = parse_lenient_json(utf8_lossy(text)))
    Json::parse(value->dump(), "repaired");
  Json::parse(repair_argument(text, nullptr), "argument");
  return 0;
}
