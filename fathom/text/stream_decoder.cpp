#include "fathom/text/stream_decoder.h"

#include <algorithm>
#include <utility>

#include "fathom/text/utf8.h"

namespace fathom {

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool keep_special)
    : tokenizer_(std::move(tokenizer)), keep_special_(keep_special) {}

std::string StreamDecoder::feed(int32_t id) {
  const std::string_view bytes = tokenizer_.token_bytes(id);
  if (!keep_special_ && tokenizer_.is_special(id)) return "";
  return feed_bytes(bytes);
}

std::string StreamDecoder::feed_bytes(std::string_view bytes) {
  pending_ += bytes;
  return utf8_take(pending_);
}

std::string StreamDecoder::flush() {
  if (pending_.empty()) return "";
  pending_.clear();
  return std::string(kReplacementUtf8);
}

size_t partial_suffix(std::string_view text, std::string_view marker) {
  if (marker.empty()) return 0;
  for (size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n)
    if (text.ends_with(marker.substr(0, n))) return n;
  return 0;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, "");
}

std::string StopMatcher::feed(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  size_t first_end = std::string::npos, begin = 0;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == held_.npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
      stop_ = stop;
    }
  }
  if (first_end != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, begin);
    held_.clear();
    return out;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, partial_suffix(held_, stop));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::flush() { return std::exchange(held_, ""); }

}  // namespace fathom
