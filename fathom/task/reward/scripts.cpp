#include "fathom/task/reward/scripts.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/options.h"
#include "fathom/text/unicode.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

struct ScriptRange {
  char32_t first, last;
  Script script;
};

// Letters of the scripts in use today; the letters outside are kOther.
constexpr ScriptRange kRanges[] = {
    {0x0041, 0x024F, Script::kLatin},      {0x0250, 0x02AF, Script::kLatin},
    {0x0370, 0x03FF, Script::kGreek},      {0x0400, 0x052F, Script::kCyrillic},
    {0x0590, 0x05FF, Script::kHebrew},     {0x0600, 0x06FF, Script::kArabic},
    {0x0750, 0x077F, Script::kArabic},     {0x08A0, 0x08FF, Script::kArabic},
    {0x0900, 0x097F, Script::kDevanagari}, {0x0E00, 0x0E7F, Script::kThai},
    {0x1100, 0x11FF, Script::kHangul},     {0x1C80, 0x1C8F, Script::kCyrillic},
    {0x1D00, 0x1DBF, Script::kLatin},      {0x1E00, 0x1EFF, Script::kLatin},
    {0x1F00, 0x1FFF, Script::kGreek},      {0x2C60, 0x2C7F, Script::kLatin},
    {0x2DE0, 0x2DFF, Script::kCyrillic},   {0x2E80, 0x2FDF, Script::kHan},
    {0x3005, 0x3007, Script::kHan},        {0x3021, 0x3029, Script::kHan},
    {0x3041, 0x30FF, Script::kKana},       {0x3131, 0x318E, Script::kHangul},
    {0x31F0, 0x31FF, Script::kKana},       {0x3400, 0x4DBF, Script::kHan},
    {0x4E00, 0x9FFF, Script::kHan},        {0xA640, 0xA69F, Script::kCyrillic},
    {0xA720, 0xA7FF, Script::kLatin},      {0xA8E0, 0xA8FF, Script::kDevanagari},
    {0xA960, 0xA97F, Script::kHangul},     {0xAB30, 0xAB6F, Script::kLatin},
    {0xAC00, 0xD7FF, Script::kHangul},     {0xF900, 0xFAFF, Script::kHan},
    {0xFB00, 0xFB06, Script::kLatin},      {0xFB1D, 0xFB4F, Script::kHebrew},
    {0xFB50, 0xFDFF, Script::kArabic},     {0xFE70, 0xFEFF, Script::kArabic},
    {0xFF21, 0xFF5A, Script::kLatin},      {0xFF66, 0xFF9F, Script::kKana},
    {0xFFA0, 0xFFDC, Script::kHangul},     {0x20000, 0x3FFFF, Script::kHan},
};

constexpr std::string_view kNames[kNumScripts] = {"latin",  "greek",      "cyrillic", "hebrew",
                                                  "arabic", "devanagari", "thai",     "kana",
                                                  "hangul", "han",        "other"};

Script script_of(char32_t code) {
  const auto* at = std::ranges::upper_bound(kRanges, code, {}, &ScriptRange::first);
  if (at == std::begin(kRanges) || (at - 1)->last < code) return Script::kOther;
  return (at - 1)->script;
}

// Numbers outside ASCII that stand for single digits: the decimal digits of other alphabets come in
// runs of ten from these.
bool is_other_digit(char32_t code) {
  constexpr char32_t kZeros[] = {0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6,
                                 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0E50, 0x0ED0,
                                 0x0F20, 0x1040, 0x17E0, 0x1810, 0xFF10};
  return std::ranges::any_of(kZeros, [&](char32_t z) { return code >= z && code < z + 10; });
}

struct Span {
  std::string_view open, close;
};
constexpr Span kSpans[] = {{"```", "```"}, {"`", "`"},     {"$$", "$$"},
                           {"$", "$"},     {"\\(", "\\)"}, {"\\[", "\\]"}};

// Bytes of the code, formula or address that begins at text[at]; 0: none does. A closing mark that
// was looked for in vain is remembered in `absent`, so that many opening ones stay linear.
size_t span_bytes(std::string_view text, size_t at, std::array<bool, std::size(kSpans)>& absent) {
  const std::string_view rest = text.substr(at);
  if (rest.starts_with("http://") || rest.starts_with("https://"))
    return std::min(rest.find_first_of(" \t\r\n"), rest.size());
  for (size_t i = 0; i < std::size(kSpans); ++i) {
    if (absent[i] || !rest.starts_with(kSpans[i].open)) continue;
    const size_t end = rest.find(kSpans[i].close, kSpans[i].open.size());
    if (end != std::string_view::npos) return end + kSpans[i].close.size();
    absent[i] = true;
  }
  return 0;
}

// Follows the words of a passage of Latin letters, to tell names from sentences.
class LatinPassage {
 public:
  void letter(char32_t code) {
    if (!inside_word_) {
      ++words_;
      capitals_ = capitals_ && ((code >= 'A' && code <= 'Z') || (code >= 0xC0 && code <= 0xDE));
    }
    inside_word_ = true;
    ++letters_;
  }
  void no_letter() { inside_word_ = false; }
  // The passage is over; returns the letters of a name.
  int64_t close() {
    const int64_t name = words_ <= kMostNameWords && capitals_ ? letters_ : 0;
    *this = {};
    return name;
  }

 private:
  static constexpr int64_t kMostNameWords = 3;
  int64_t words_ = 0, letters_ = 0;
  bool inside_word_ = false, capitals_ = true;
};

void count(char32_t code, bool in_span, LatinPassage& passage, ScriptCounts& counts) {
  const bool letter = code == kReplacementChar || (CharTable::get()[code] & kLetter) != 0;
  if (!letter || in_span) passage.no_letter();
  if (code >= '0' && code <= '9') {
    ++counts.ascii_digits;
  } else if (is_other_digit(code)) {
    ++counts.other_digits;
  } else if (code == kReplacementChar) {
    ++counts.letters[static_cast<size_t>(Script::kOther)];
  } else if (CharTable::get()[code] & kLetter) {
    const Script script = script_of(code);
    if (in_span && (script == Script::kLatin || script == Script::kGreek)) return;
    if (script == Script::kLatin)
      passage.letter(code);
    else
      counts.name_letters += passage.close();
    ++counts.letters[static_cast<size_t>(script)];
  }
}

}  // namespace

std::string_view script_name(Script script) { return kNames[static_cast<size_t>(script)]; }

int64_t ScriptCounts::num_letters() const {
  return std::accumulate(letters.begin(), letters.end(), int64_t{0});
}

Script ScriptCounts::main() const {
  return static_cast<Script>(std::ranges::max_element(letters) - letters.begin());
}

ScriptCounts count_scripts(std::string_view text) {
  ScriptCounts counts;
  LatinPassage passage;
  std::array<bool, std::size(kSpans)> absent{};
  size_t span_end = 0;
  for (size_t at = 0; at < text.size();) {
    if (at >= span_end) span_end = at + span_bytes(text, at, absent);
    const Utf8Char c = utf8_front(text.substr(at));
    count(c.code, at < span_end, passage, counts);
    at += c.size_bytes;
  }
  counts.name_letters += passage.close();
  return counts;
}

ScriptSet parse_script_set(std::string_view names) {
  ScriptSet set = 0;
  while (true) {
    const size_t plus = names.find('+');
    const std::string_view name = names.substr(0, plus);
    const auto* found = std::ranges::find(kNames, name);
    if (found == std::end(kNames)) {
      std::string known;
      for (const std::string_view n : kNames) known += (known.empty() ? "" : ", ") + std::string(n);
      throw Error(Code::kInvalidArgument,
                  fmt::format("expected names of scripts joined by +, found '{}'", name),
                  "known: " + known);
    }
    set |= script_bit(static_cast<Script>(found - std::begin(kNames)));
    if (plus == std::string_view::npos) return set;
    names.remove_prefix(plus + 1);
  }
}

}  // namespace fathom
