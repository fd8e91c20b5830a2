#include "fathom/infer/text_stream.h"

#include <utility>

#include "fathom/text/chat_tokens.h"

namespace fathom {

TextDelta& TextDelta::operator+=(const TextDelta& d) {
  thinking += d.thinking;
  content += d.content;
  return *this;
}

TextStream::TextStream(Tokenizer tokenizer, ThinkingMode mode, std::vector<std::string> stop)
    : tokenizer_(tokenizer), decoder_(std::move(tokenizer)), stop_(std::move(stop)), mode_(mode) {}

TextDelta TextStream::split(std::string text, bool at_end) {
  TextDelta out;
  held_ += text;
  while (!stopped()) {
    const bool open = mode_ == ThinkingMode::kOpen;
    const std::string_view marker = open ? kEndThinkText : kThinkText;
    const size_t at = mode_ == ThinkingMode::kRaw ? held_.npos : held_.find(marker);
    size_t sure = at;
    if (at == held_.npos) {
      const size_t keep = at_end || mode_ == ThinkingMode::kRaw ? 0 : partial_suffix(held_, marker);
      sure = held_.size() - keep;
    }
    if (open)
      out.thinking += held_.substr(0, sure);
    else
      out.content += stop_.feed(std::string_view(held_).substr(0, sure));
    if (at == held_.npos) {
      held_.erase(0, sure);
      break;
    }
    held_.erase(0, at + marker.size());
    mode_ = open ? ThinkingMode::kClosed : ThinkingMode::kOpen;
  }
  if (at_end && !stopped()) out.content += stop_.flush();
  return out;
}

TextDelta TextStream::feed(int32_t token) {
  if (stopped()) return {};
  // A model may have more rows than its tokenizer has tokens.
  constexpr std::string_view kNotText = "\xff";
  return split(tokenizer_.has_token(token) ? decoder_.feed(token) : decoder_.feed_bytes(kNotText),
               false);
}

TextDelta TextStream::flush() { return stopped() ? TextDelta() : split(decoder_.flush(), true); }

}  // namespace fathom
