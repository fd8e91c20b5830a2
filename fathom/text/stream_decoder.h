// Text out of a stream of tokens: holds back what is not decided yet (half a character, the front
// of a stop string).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/text/tokenizer.h"

namespace fathom {

// The parts that feed() and flush() return join to Tokenizer::decode of all ids. One thread at a
// time.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool keep_special = true);
  std::string feed(int32_t id);  // complete characters only; throws Error for an id without token
  std::string feed_bytes(std::string_view bytes);
  std::string flush();  // U+FFFD for a partial character that is left

 private:
  Tokenizer tokenizer_;
  bool keep_special_;
  std::string pending_;  // a proper prefix of a character
};

// Ends a stream of text at the first stop string (the one that is complete first; of several the
// longest). The result is the same however the text is cut. One thread at a time.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);  // empty strings are ignored
  std::string feed(
      std::string_view text);  // what is certain not to be part of a stop; nothing once stopped
  std::string flush();         // the rest, at the end of the stream
  bool stopped() const { return stopped_; }
  const std::string& stop() const { return stop_; }  // the string that ended the stream

 private:
  std::vector<std::string> stops_;
  std::string held_, stop_;
  bool stopped_ = false;
};

// Length of the longest suffix of `text` that is a proper prefix of `marker`.
size_t partial_suffix(std::string_view text, std::string_view marker);

}  // namespace fathom
