#include "fathom/text/chat_format.h"

#include <fmt/core.h>

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

template <class Enum, size_t N>
Enum parse_name(std::string_view name, const std::pair<std::string_view, Enum> (&names)[N],
                const char* what) {
  std::string list;
  for (const auto& [text, value] : names) {
    if (text == name) return value;
    list += (list.empty() ? "" : ", ") + std::string(text);
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("expected one of {} as {}, found \"{}\"", list, what, name));
}

std::span<const std::string_view> role_tokens(ChatFormat format) {
  static constexpr std::string_view kDeepSeek[] = {kUserText, kAssistantText};
  static constexpr std::string_view kKimi[] = {kImSystemText, kImUserText, kImAssistantText,
                                               kImMiddleText, kImEndText};
  static constexpr std::string_view kGlm[] = {kGlmUserText, kGlmAssistantText, kGlmObservationText};
  switch (format) {
    case ChatFormat::kV2:  // its roles are words
      return {};
    case ChatFormat::kKimi:
    case ChatFormat::kKimiThinking:
      return kKimi;
    case ChatFormat::kGlm:
      return kGlm;
    default:
      return kDeepSeek;
  }
}

}  // namespace

ChatFormat parse_chat_format(std::string_view name) {
  static constexpr std::pair<std::string_view, ChatFormat> kNames[] = {
      {"v2", ChatFormat::kV2},
      {"v3", ChatFormat::kV3},
      {"r1", ChatFormat::kR1},
      {"v3.1", ChatFormat::kV31},
      {"v3.2", ChatFormat::kV32},
      {"kimi", ChatFormat::kKimi},
      {"kimi-thinking", ChatFormat::kKimiThinking},
      {"glm", ChatFormat::kGlm}};
  return parse_name(name, kNames, "chat format");
}

ThinkMode parse_think_mode(std::string_view name) {
  static constexpr std::pair<std::string_view, ThinkMode> kNames[] = {
      {"chat", ThinkMode::kChat}, {"thinking", ThinkMode::kThinking}};
  return parse_name(name, kNames, "mode");
}

Retention parse_retention(std::string_view name) {
  static constexpr std::pair<std::string_view, Retention> kNames[] = {
      {"none", Retention::kNone},
      {"v32", Retention::kV32},
      {"keep_if_tools", Retention::kKeepIfTools},
      {"all", Retention::kAll}};
  return parse_name(name, kNames, "retention policy");
}

ChatFormat detect_chat_format(std::string_view model_type, const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view token) {
    const std::optional<int32_t> id = tokenizer.token_id(token);
    return id && tokenizer.is_added(*id);
  };
  if (has(kImMiddleText)) return has(kThinkText) ? ChatFormat::kKimiThinking : ChatFormat::kKimi;
  if (has(kGlmObservationText)) return ChatFormat::kGlm;
  if (model_type == "deepseek_v32") return ChatFormat::kV32;
  if (model_type == "deepseek_v2" && !has(kUserText)) return ChatFormat::kV2;
  if (!has(kThinkText)) return ChatFormat::kV3;
  return has(kSearchBeginText) || has(kDsmlText) ? ChatFormat::kV31 : ChatFormat::kR1;
}

bool format_thinks(ChatFormat format) {
  return format != ChatFormat::kV2 && format != ChatFormat::kV3 && format != ChatFormat::kKimi;
}

void require_roles(ChatFormat format, const Tokenizer& tokenizer) {
  for (const std::string_view role : role_tokens(format))
    if (!tokenizer.token_id(role))
      throw Error(Code::kNotFound,
                  fmt::format("expected a token {} in the tokenizer, found none", role),
                  "this model was not made for chat: use `fathom generate --thinking raw`");
}

std::span<const std::string_view> end_texts(ChatFormat format) {
  static constexpr std::string_view kDeepSeek[] = {kEosText};
  static constexpr std::string_view kKimi[] = {kImEndText};
  static constexpr std::string_view kGlm[] = {kEndOfTextText, kGlmUserText, kGlmObservationText};
  switch (format) {
    case ChatFormat::kKimi:
    case ChatFormat::kKimiThinking:
      return kKimi;
    case ChatFormat::kGlm:
      return kGlm;
    default:
      return kDeepSeek;
  }
}

void check_has_call(std::span<const Message> messages, size_t index) {
  size_t caller = index;
  while (caller > 0 && messages[caller].role == Role::kTool) --caller;
  if (messages[caller].tool_calls.empty())
    throw Error(Code::kInvalidArgument,
                fmt::format("message {}: a tool result needs an assistant message with "
                            "tool_calls before it",
                            index));
}

Json call_arguments(const ToolCall& call, size_t message) {
  Json object;
  try {
    object = Json::parse(call.arguments, "the arguments of " + call.name);
  } catch (const Error& e) {
    throw Error(Code::kInvalidArgument, fmt::format("message {}: {}", message, e.message()));
  }
  if (!object.is_object())
    throw Error(Code::kInvalidArgument,
                fmt::format("message {}: expected a JSON object as arguments of {}, found {}",
                            message, call.name, call.arguments));
  return object;
}

void SegmentWriter::put(std::string_view text, bool markup) {
  if (text.empty()) return;
  if (!segments_.empty() && segments_.back().markup == markup &&
      segments_.back().generated == generated_)
    segments_.back().text += text;
  else
    segments_.push_back({std::string(text), markup, generated_});
}

int64_t last_user_message(std::span<const Message> all) {
  for (size_t i = all.size(); i > 0; --i) {
    const Role role = all[i - 1].role;
    if (role == Role::kUser || role == Role::kDeveloper) return static_cast<int64_t>(i - 1);
  }
  return -1;
}

std::vector<bool> kept_thoughts(std::span<const Message> all, const ChatOptions& options) {
  std::vector<bool> keep(all.size(), false);
  if (options.mode == ThinkMode::kChat) return keep;
  const bool tools = std::any_of(all.begin(), all.end(), [](const Message& m) {
    return !m.tools.empty() || !m.tool_calls.empty();
  });
  const bool every = options.retention == Retention::kAll ||
                     (options.retention == Retention::kKeepIfTools && tools);
  const int64_t last_user = last_user_message(all);
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].role != Role::kAssistant) continue;
    const bool recent = static_cast<int64_t>(i) > last_user;
    keep[i] = every || (options.retention != Retention::kNone && recent) ||
              (all[i].prefix && i + 1 == all.size());
  }
  return keep;
}

std::vector<TextSegment> render_chat(std::span<const Message> context,
                                     std::span<const Message> messages, const ChatOptions& options,
                                     const ChatTemplate& words) {
  SegmentWriter out;
  if (options.format != ChatFormat::kV32 && !context.empty())
    throw Error(Code::kInvalidArgument, "only the V3.2 format is rendered in steps",
                "render the whole conversation");
  switch (options.format) {
    case ChatFormat::kKimi:
    case ChatFormat::kKimiThinking:
      render_kimi(messages, options, words, out);
      return out.take();
    case ChatFormat::kGlm:
      render_glm(messages, options, words, out);
      return out.take();
    default:
      if (options.add_bos && context.empty()) out.markup(kBosText);
  }
  if (options.format == ChatFormat::kV32)
    render_v32(context, messages, options, words, out);
  else if (options.format == ChatFormat::kV2)
    render_v2(messages, options, out);
  else
    render_v3(messages, options, out);
  return out.take();
}

bool ends_in_thought(std::string_view prompt) {
  if (prompt.ends_with('\n')) prompt.remove_suffix(1);  // R1
  return prompt.ends_with(kThinkText);
}

std::string join_segments(std::span<const TextSegment> segments) {
  std::string out;
  for (const TextSegment& s : segments) out += s.text;
  return out;
}

}  // namespace fathom
