#include "fathom/text/utf8.h"

#include <cstring>

#include "fathom/base/error.h"

namespace fathom {

Utf8Char utf8_front(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char b = byte(0);
  if (b < 0x80) return {Utf8State::kComplete, 1, b};
  size_t size = 0;
  unsigned char low = 0x80, high = 0xBF;  // allowed range of the second byte
  if (b >= 0xC2 && b <= 0xDF) {
    size = 2;
  } else if (b >= 0xE0 && b <= 0xEF) {
    size = 3;
    if (b == 0xE0) low = 0xA0;
    if (b == 0xED) high = 0x9F;
  } else if (b >= 0xF0 && b <= 0xF4) {
    size = 4;
    if (b == 0xF0) low = 0x90;
    if (b == 0xF4) high = 0x8F;
  } else {
    return {Utf8State::kInvalid, 1, kReplacementChar};
  }
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {Utf8State::kPartial, static_cast<uint8_t>(i), kReplacementChar};
    if (byte(i) < low || byte(i) > high)
      return {Utf8State::kInvalid, static_cast<uint8_t>(i), kReplacementChar};
    low = 0x80;
    high = 0xBF;
  }
  size_t at = 0;
  const char32_t code = utf8_next_unchecked(text, at);
  return {Utf8State::kComplete, static_cast<uint8_t>(size), code};
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (at + 8 <= text.size()) {  // eight ASCII bytes at once
      uint64_t word;
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    const Utf8Char c = utf8_front(text.substr(at, 4));
    if (c.state != Utf8State::kComplete) return at;
    at += c.size_bytes;
  }
  return at;
}

std::string utf8_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t good = utf8_valid_prefix(bytes);
    out += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    out += kReplacementUtf8;
    bytes.remove_prefix(utf8_front(bytes).size_bytes);
  }
  return out;
}

std::string utf8_take(std::string& pending) {
  std::string out;
  std::string_view rest = pending;
  while (!rest.empty()) {
    const size_t good = utf8_valid_prefix(rest);
    out += rest.substr(0, good);
    rest.remove_prefix(good);
    if (rest.empty()) break;
    const Utf8Char c = utf8_front(rest);
    if (c.state == Utf8State::kPartial) break;
    out += kReplacementUtf8;
    rest.remove_prefix(c.size_bytes);
  }
  pending.erase(0, pending.size() - rest.size());
  return out;
}

void append_utf8(char32_t code, std::string& out) {
  FM_CHECK(code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF), "code point is {:#x}",
           static_cast<uint32_t>(code));
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

}  // namespace fathom
