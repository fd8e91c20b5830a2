#include "fathom/train/data/records.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

constexpr const char* kForms =
    "a record is {\"text\": ...} or {\"messages\": [{\"role\": ..., \"content\": ...}, ...]}";

[[noreturn]] void bad(const std::string& what, const std::string& message) {
  throw Error(Code::kInvalidArgument, what + ": " + message, kForms);
}

Speaker parse_role(const std::string& name, const std::string& what) {
  if (name == "system") return Speaker::kSystem;
  if (name == "user") return Speaker::kUser;
  if (name == "assistant") return Speaker::kAssistant;
  bad(what, fmt::format("expected the role system, user or assistant, found '{}'", name));
}

ChatTurn parse_turn(const Json& message, const std::string& what) {
  ChatTurn turn;
  if (!message.is_object()) bad(what, "a message is not an object");
  bool has_role = false, has_content = false;
  for (const auto& [key, value] : message.members()) {
    if (key == "role") {
      turn.role = parse_role(value.as_string(), what);
      has_role = true;
    } else if (key == "content") {
      turn.content = value.as_string();
      has_content = true;
    } else if (key == "reasoning_content") {
      if (value.is_null()) continue;
      turn.thinking = value.as_string();
      turn.has_thinking = true;
    } else {
      bad(what, fmt::format("a message has the unknown key '{}'", key));
    }
  }
  if (!has_role || !has_content) bad(what, "a message needs role and content");
  if (turn.has_thinking && turn.role != Speaker::kAssistant) {
    bad(what, "only the assistant has reasoning_content");
  }
  return turn;
}

void check_order(const std::vector<ChatTurn>& chat, const std::string& what) {
  size_t i = chat.front().role == Speaker::kSystem ? 1 : 0;
  if ((chat.size() - i) % 2 != 0 || chat.size() == i) {
    bad(what, "a chat ends with an assistant message");
  }
  for (Speaker expected = Speaker::kUser; i < chat.size(); ++i) {
    if (chat[i].role != expected) bad(what, "user and assistant messages must take turns");
    expected = expected == Speaker::kUser ? Speaker::kAssistant : Speaker::kUser;
  }
}

}  // namespace

Record parse_record(std::string_view line, const std::string& what) {
  const Json json = Json::parse(line, what);
  Record record;
  const Json* text = json.find("text");
  const Json* messages = json.find("messages");
  if ((text != nullptr) == (messages != nullptr)) {
    bad(what, "expected exactly one of 'text' and 'messages'");
  }
  try {
    if (text != nullptr) {
      record.text = text->as_string();
      return record;
    }
    for (const Json& message : messages->items()) record.chat.push_back(parse_turn(message, what));
  } catch (const Error& error) {  // a value of the wrong kind: say where
    if (error.message().starts_with(what)) throw;
    bad(what, error.message());
  }
  if (record.chat.empty()) bad(what, "'messages' is empty");
  check_order(record.chat, what);
  return record;
}

RecordReader::RecordReader(const std::string& path) : file_(path) {
  const auto bytes = file_.bytes();
  rest_ = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  is_jsonl_ = path.ends_with(".jsonl");
}

bool RecordReader::next_line(std::string_view& line) {
  while (!rest_.empty()) {
    const size_t end = is_jsonl_ ? rest_.find('\n') : rest_.npos;
    line = rest_.substr(0, end);
    rest_ = end == rest_.npos ? std::string_view{} : rest_.substr(end + 1);
    ++line_number_;
    if (line.find_first_not_of(" \t\r\n") != line.npos) return true;
  }
  return false;
}

Record RecordReader::parse(std::string_view line, uint64_t line_number) const {
  if (!is_jsonl_) return {std::string(line), {}};
  return parse_record(line, fmt::format("{}:{}", file_.path(), line_number));
}

bool RecordReader::next(Record& record) {
  std::string_view line;
  if (!next_line(line)) return false;
  record = parse(line, line_number_);
  return true;
}

}  // namespace fathom
