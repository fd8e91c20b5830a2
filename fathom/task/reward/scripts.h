// Which writing systems a text uses, by Unicode ranges: the measure behind language consistency.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fathom {

enum class Script : uint8_t {
  kLatin,
  kGreek,
  kCyrillic,
  kHebrew,
  kArabic,
  kDevanagari,
  kThai,
  kKana,
  kHangul,
  kHan,
  kOther,
};
inline constexpr size_t kNumScripts = 11;
std::string_view script_name(Script script);  // "latin"

struct ScriptCounts {
  std::array<int64_t, kNumScripts> letters{};
  int64_t ascii_digits = 0, other_digits = 0;
  // Of the Latin letters, those of passages that look like names inside other scripts: at most
  // three words without letters of another script between them, all with a capital in front.
  int64_t name_letters = 0;
  int64_t num_letters() const;
  Script main() const;  // that of most letters; the first of equals
};

// Letters per script, and digits of 0-9 or of another alphabet. In code (between one or three
// backticks), formulas ($...$, $$...$$, \(...\), \[...\]) and addresses (http://...) Latin and
// Greek letters do not count, others do, so that nothing hides there; what opens and does not close
// is text. Malformed UTF-8 counts as letters of kOther. Linear time.
ScriptCounts count_scripts(std::string_view text);

// A set of scripts, one bit each.
using ScriptSet = uint32_t;
constexpr ScriptSet script_bit(Script s) { return ScriptSet{1} << static_cast<unsigned>(s); }
ScriptSet parse_script_set(std::string_view names);  // "han+kana"; throws Error for unknown names

}  // namespace fathom
