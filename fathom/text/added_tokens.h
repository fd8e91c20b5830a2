// Finds added tokens in raw text before the words are cut: leftmost, then longest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;      // a match also takes the white space before it
  bool rstrip = false;      // ... behind it
  bool normalized = false;  // matched in a second pass, after those that are not
};

// A stretch of text: an added token, or plain text (id -1) in between.
struct TextPart {
  int32_t id;
  std::string_view text;
};

// Immutable, thread-safe.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);
  std::vector<TextPart> split(std::string_view text) const;

 private:
  struct Entry {
    std::string content;
    int32_t id;
    bool lstrip, rstrip;
  };
  // One pass: entries sorted by content.
  struct Pass {
    std::vector<Entry> entries;
    std::array<bool, 256> starts{};
    const Entry* longest_at(std::string_view text) const;
    void split(std::string_view text, std::vector<TextPart>& out) const;
  };
  Pass raw_, normalized_;
};

}  // namespace fathom
