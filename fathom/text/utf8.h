// UTF-8: decoding one character at a time, checking, and the replacement of what is malformed by
// U+FFFD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

inline constexpr char32_t kReplacementChar = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// What stands at the front of a byte string. kPartial: a proper prefix of a character, the string
// ends in it.
enum class Utf8State : uint8_t { kComplete, kPartial, kInvalid };

struct Utf8Char {
  Utf8State state;
  uint8_t size_bytes;  // of the character; for kPartial and kInvalid the maximal subpart (>= 1)
  char32_t code;       // U+FFFD unless complete
};

// The first character of `text`, which must not be empty. Overlong forms, surrogates and values
// past U+10FFFF are invalid (Unicode 14, table 3-7).
Utf8Char utf8_front(std::string_view text);

// The character at text[at]; `text` must be valid UTF-8 and `at` on a character boundary. Advances
// `at`.
inline char32_t utf8_next_unchecked(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  const char32_t b = byte(at);
  if (b < 0x80) return ++at, b;
  if (b < 0xE0) {
    const char32_t code = (b & 0x1F) << 6 | (byte(at + 1) & 0x3F);
    return at += 2, code;
  }
  if (b < 0xF0) {
    const char32_t code = (b & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F);
    return at += 3, code;
  }
  const char32_t code = (b & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 |
                        (byte(at + 2) & 0x3F) << 6 | (byte(at + 3) & 0x3F);
  return at += 4, code;
}

// Offset of the first byte that is not part of valid UTF-8, or text.size().
size_t utf8_valid_prefix(std::string_view text);

// Each maximal malformed subpart becomes one U+FFFD, as the Unicode standard recommends.
std::string utf8_lossy(std::string_view bytes);

// Takes all that is decided from the front of `pending`: complete characters, and U+FFFD for what
// is malformed. A proper prefix of a character stays in it.
std::string utf8_take(std::string& pending);

void append_utf8(char32_t code, std::string& out);  // code must be a scalar value

}  // namespace fathom
