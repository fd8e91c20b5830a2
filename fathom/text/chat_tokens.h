// Names of the control tokens, as DeepSeek publishes them. The bar is U+FF5C, the low block U+2581.
#pragma once

#include <array>
#include <string_view>

namespace fathom {

inline constexpr std::string_view kBosText = "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>";
inline constexpr std::string_view kEosText = "<\uFF5Cend\u2581of\u2581sentence\uFF5C>";
inline constexpr std::string_view kPadText = "<\uFF5C\u2581pad\u2581\uFF5C>";
inline constexpr std::string_view kUserText = "<\uFF5CUser\uFF5C>";
inline constexpr std::string_view kAssistantText = "<\uFF5CAssistant\uFF5C>";
inline constexpr std::string_view kThinkText = "<think>";
inline constexpr std::string_view kEndThinkText = "</think>";
inline constexpr std::string_view kFimHoleText = "<\uFF5Cfim\u2581hole\uFF5C>";
inline constexpr std::string_view kFimBeginText = "<\uFF5Cfim\u2581begin\uFF5C>";
inline constexpr std::string_view kFimEndText = "<\uFF5Cfim\u2581end\uFF5C>";
inline constexpr std::string_view kDsmlText = "\uFF5CDSML\uFF5C";
// V3, R1 and V3.1 only.
inline constexpr std::string_view kToolCallsBeginText = "<\uFF5Ctool\u2581calls\u2581begin\uFF5C>";
inline constexpr std::string_view kToolCallsEndText = "<\uFF5Ctool\u2581calls\u2581end\uFF5C>";
inline constexpr std::string_view kToolCallBeginText = "<\uFF5Ctool\u2581call\u2581begin\uFF5C>";
inline constexpr std::string_view kToolCallEndText = "<\uFF5Ctool\u2581call\u2581end\uFF5C>";
inline constexpr std::string_view kToolOutputsBeginText =
    "<\uFF5Ctool\u2581outputs\u2581begin\uFF5C>";
inline constexpr std::string_view kToolOutputsEndText = "<\uFF5Ctool\u2581outputs\u2581end\uFF5C>";
inline constexpr std::string_view kToolOutputBeginText =
    "<\uFF5Ctool\u2581output\u2581begin\uFF5C>";
inline constexpr std::string_view kToolOutputEndText = "<\uFF5Ctool\u2581output\u2581end\uFF5C>";
inline constexpr std::string_view kToolSepText = "<\uFF5Ctool\u2581sep\uFF5C>";

inline constexpr std::string_view kSearchBeginText = "<\uFF5Csearch\u2581begin\uFF5C>";

// What a tokenizer trained here is given; ids are the places in this list, as bos, eos and pad have
// 0, 1, 2 in V3.
inline constexpr std::array<std::string_view, 11> kChatSpecialTokens = {
    kBosText,      kEosText,     kPadText,      kUserText,   kAssistantText, kThinkText,
    kEndThinkText, kFimHoleText, kFimBeginText, kFimEndText, kDsmlText};

}  // namespace fathom
