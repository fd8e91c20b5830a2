// Tokens in, text out: complete characters, thinking apart from the answer, stop strings.
#pragma once

#include <string>
#include <vector>

#include "fathom/text/stream_decoder.h"

namespace fathom {

struct TextDelta {
  std::string thinking, content;
  bool empty() const { return thinking.empty() && content.empty(); }
  TextDelta& operator+=(const TextDelta& d);
};

enum class ThinkingMode : uint8_t {
  kRaw,     // everything is content, markers included
  kClosed,  // the text starts as content; <think> opens thinking
  kOpen,    // the text starts as thinking, as after a prompt that ends in <think>
};

// An id without token reads as U+FFFD. Parts joined are the same however the tokens arrive. Text
// between <think> and </think> is thinking; the markers belong to neither. Stop strings are looked
// for in the content and end it. One thread at a time.
class TextStream {
 public:
  TextStream(Tokenizer tokenizer, ThinkingMode mode, std::vector<std::string> stop);
  TextDelta feed(int32_t token);
  TextDelta flush();  // what was held back, at the end
  bool stopped() const { return stop_.stopped(); }
  const std::string& stop() const { return stop_.stop(); }

 private:
  TextDelta split(std::string text, bool at_end);

  Tokenizer tokenizer_;
  StreamDecoder decoder_;
  StopMatcher stop_;
  ThinkingMode mode_;
  std::string held_;  // could become a marker
};

}  // namespace fathom
