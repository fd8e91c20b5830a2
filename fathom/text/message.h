// Messages of a conversation, as the chat encodings take them and the parsers give them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

enum class Role : uint8_t { kSystem, kDeveloper, kUser, kAssistant, kTool };

std::string_view role_name(Role role);
Role parse_role(std::string_view name);  // throws Error for an unknown role

struct ToolCall {
  std::string id = {};  // empty where the source gave none
  std::string name;
  std::string arguments = "{}";  // JSON text of an object
  bool operator==(const ToolCall&) const = default;
};

struct Message {
  Role role = Role::kUser;
  std::string content = {};
  std::string reasoning_content = {};     // assistant
  std::vector<ToolCall> tool_calls = {};  // assistant
  std::string tool_call_id = {};          // tool: the call that this is the result of, may be empty
  std::vector<Json> tools = {};           // system, developer: the `function` objects
  std::optional<Json> response_format = {};  // system, developer: a JSON schema
  bool prefix = false;  // the last, assistant message: the model goes on where it ends
};

// OpenAI's form: content is a string, null, or a list of text parts; tools are {"type": "function",
// "function": {...}} or the function objects themselves. Unknown members are ignored. Throws Error
// that names the field.
Message message_from_json(const Json& json);
std::vector<Message> messages_from_json(const Json& array);
Json message_to_json(const Message& message);

// What to do with a call that has no result.
enum class MissingResult : uint8_t { kError, kFill };

// Puts tool results in the order of their calls by tool_call_id (those without id keep their
// places), as the encodings pair them by position. A call without result is an Error that lists the
// ids, or gets an error text as result (not in the last group when it is still being filled: then
// the block stays open).
std::vector<Message> arrange_tool_results(std::vector<Message> messages, MissingResult missing);

}  // namespace fathom
