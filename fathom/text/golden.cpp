#include "fathom/text/golden.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/completion_parser.h"
#include "fathom/text/tokenizer.h"

namespace fathom {
namespace {

std::string compare_tokens(const Json& row, const Tokenizer& tokenizer) {
  const std::string& text = row.at("text").as_string();
  std::vector<int32_t> want;
  for (const Json& id : row.at("ids").items()) want.push_back(static_cast<int32_t>(id.as_int()));
  const std::vector<int32_t> got = tokenizer.encode(text, AddedTokens::kParse);
  if (got != want)
    return fmt::format("{}: expected ids [{}], got [{}]", json_quote(text), fmt::join(want, " "),
                       fmt::join(got, " "));
  const std::string back = tokenizer.decode(want);
  if (back != text)
    return fmt::format("expected the text {}, decoded {}", json_quote(text), json_quote(back));
  return "";
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += by.size())
    text.replace(at, what.size(), by);
}

bool flag(const Json& row, const char* key, bool otherwise) {
  const Json* value = row.find(key);
  return value ? value->as_bool() : otherwise;
}

std::string render_row(const Json& row, const ChatTemplate& words) {
  ChatOptions options;
  options.mode = parse_think_mode(row.at("mode").as_string());
  options.add_bos = flag(row, "add_bos", true);
  std::vector<Message> context;
  if (const Json* json = row.find("context")) context = messages_from_json(*json);
  const std::vector<Message> messages = messages_from_json(row.at("messages"));
  return join_segments(render_chat(context, messages, options, words));
}

std::string parse_row(const Json& row) {
  Completion c =
      parse_completion(row.at("text").as_string(), parse_think_mode(row.at("mode").as_string()))
          .value();
  std::vector<Json> calls;
  for (const ToolCall& call : c.tool_calls)
    calls.push_back(Json::object(
        {{"name", Json::string(call.name)}, {"arguments", Json::string(call.arguments)}}));
  return Json::object({{"content", Json::string(c.content)},
                       {"reasoning_content", Json::string(c.reasoning_content)},
                       {"tool_calls", Json::array(std::move(calls))}})
      .dump();
}

// Members in the order that parse_row writes.
std::string expected_completion(const Json& want) {
  Json calls = Json::array();
  for (const Json& call : want.at("tool_calls").items())
    calls.push(Json::object({{"name", call.at("name")}, {"arguments", call.at("arguments")}}));
  return Json::object({{"content", want.at("content")},
                       {"reasoning_content", want.at("reasoning_content")},
                       {"tool_calls", calls}})
      .dump();
}

std::string compare_encoding(const Json& row, const ChatTemplate& words) {
  const bool encode = row.find("messages") != nullptr, want_error = flag(row, "error", false);
  const Json* name = row.find("name");
  const std::string title = name && name->is_string() ? name->as_string() + ": " : "";
  std::string got, want;
  try {
    got = encode ? render_row(row, words) : parse_row(row);
  } catch (const Error& e) {
    return want_error ? "" : fmt::format("{}unexpected error: {}", title, e.message());
  }
  if (want_error) return fmt::format("{}expected an error, got {}", title, json_quote(got));
  if (encode) {
    want = row.at("expected").as_string();
    replace_all(want, "@@TOOLS_PREAMBLE@@", words.tools_preamble);
    replace_all(want, "@@RESPONSE_FORMAT_PREAMBLE@@", words.response_format_preamble);
  } else {
    want = expected_completion(row.at("expected"));
  }
  if (got == want) return "";
  return fmt::format("{}expected {}, got {}", title, json_quote(want), json_quote(got));
}

// Runs `compare` on every line of a JSONL file.
template <class Compare>
TextGoldenReport check_lines(const std::string& file, const Compare& compare) {
  TextGoldenReport report;
  for (const Json& row : Json::parse_lines(read_file(file), file)) {
    const size_t line = ++report.num_cases;
    std::string message;
    try {
      message = compare(row);
    } catch (const Error& e) {
      message = e.message();
    }
    if (!message.empty()) report.failures.push_back({line, message});
  }
  return report;
}

}  // namespace

TextGoldenReport check_tokenizer_golden(const std::string& file, const Tokenizer& tokenizer) {
  return check_lines(file, [&](const Json& row) { return compare_tokens(row, tokenizer); });
}

TextGoldenReport check_encoding_golden(const std::string& file, const ChatTemplate& words) {
  return check_lines(file, [&](const Json& row) { return compare_encoding(row, words); });
}

}  // namespace fathom
