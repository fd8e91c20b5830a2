#include "fathom/text/v3_scanner.h"

#include "fathom/text/unicode.h"
#include "fathom/text/utf8.h"

namespace fathom {

const std::string_view kV3Digits = R"(\p{N}{1,3})";
const std::string_view kV3SingleDigits = R"(\p{N})";
const std::string_view kV3Cjk =
    "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+";
const std::string_view kV3Words =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]"
    "+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

namespace {

constexpr uint8_t kCjk = 128;  // beside the bits of CharClass
constexpr uint8_t kBorders = kNumber | kCjk;
constexpr uint8_t kWordChar = kLetter | kMark;
constexpr uint8_t kMarkup = kPunctuation | kSymbol;

bool is_cjk(char32_t c) { return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF); }
bool is_ascii_letter(unsigned char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
bool is_ascii_punctuation(unsigned char c) {
  return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
         (c >= 123 && c <= 126);
}

class Scanner {
 public:
  Scanner(std::string_view text, int digits, std::vector<std::string_view>& pieces)
      : table_(CharTable::get()), text_(text), digits_(digits), pieces_(pieces) {}

  void run() {
    while (at_ < text_.size()) {
      const Char c = look(at_);
      const uint8_t segment = c.kind & kBorders;
      if (segment != segment_) emit_gap();
      segment_ = segment;
      if (segment == kNumber)
        digits();
      else
        step(c);
    }
    emit_gap();
  }

 private:
  struct Char {
    uint8_t kind;  // 0 behind the end, where no class fits
    size_t next;
  };

  Char look(size_t at) const {
    if (at >= text_.size()) return {0, at};
    size_t next = at;
    const char32_t code = utf8_next_unchecked(text_, next);
    return {static_cast<uint8_t>(table_[code] | (is_cjk(code) ? kCjk : 0)), next};
  }

  // The third pattern sees one segment at a time: a CJK run, or what stands between such runs and
  // digits.
  bool is(Char c, uint8_t kinds) const {
    return (c.kind & kinds) != 0 && (c.kind & kBorders) == segment_;
  }
  size_t skip(size_t at, uint8_t kinds) const {
    for (Char c = look(at); is(c, kinds); c = look(at)) at = c.next;
    return at;
  }

  // As many digits as make a word.
  void digits() {
    size_t end = at_;
    for (int n = 0; n < digits_; ++n) {
      const Char c = look(end);
      if (!(c.kind & kNumber)) break;
      end = c.next;
    }
    match(end);
  }

  // One attempt of the alternation at at_; what nothing matches joins the gap before the next
  // match.
  void step(Char c) {
    const auto byte = static_cast<unsigned char>(text_[at_]);
    if (is_ascii_punctuation(byte) && at_ + 1 < text_.size() &&
        is_ascii_letter(static_cast<unsigned char>(text_[at_ + 1]))) {
      size_t end = at_ + 2;
      while (end < text_.size() && is_ascii_letter(static_cast<unsigned char>(text_[end]))) ++end;
      return match(end);
    }
    if (is(c, kWordChar)) return match(skip(c.next, kWordChar));
    if (!(c.kind & (kNewline | kMarkup)) && is(look(c.next), kWordChar))
      return match(skip(c.next, kWordChar));
    if (is(c, kMarkup) || (byte == ' ' && is(look(c.next), kMarkup)))
      return match(skip(skip(c.next, kMarkup), kNewline));
    if (is(c, kSpace)) return match(blanks());
    at_ = c.next;
  }

  // \s*[\r\n]+ | \s+(?!\S) | \s+ : through the last line end of the run, else all but the last
  // blank before a word.
  size_t blanks() const {
    size_t end = at_, last = at_, after_newline = 0;
    Char c = look(end);
    while (is(c, kSpace)) {
      last = end;
      end = c.next;
      if (c.kind & kNewline) after_newline = end;
      c = look(end);
    }
    if (after_newline) return after_newline;
    const bool at_segment_end = end == text_.size() || (c.kind & kBorders) != segment_;
    return at_segment_end || last == at_ ? end : last;
  }

  void emit_gap() {
    if (at_ > gap_) pieces_.push_back(text_.substr(gap_, at_ - gap_));
    gap_ = at_;
  }
  void emit(size_t end) {
    pieces_.push_back(text_.substr(at_, end - at_));
    at_ = gap_ = end;
  }
  void match(size_t end) {
    emit_gap();
    emit(end);
  }

  const CharTable& table_;
  std::string_view text_;
  int digits_;
  std::vector<std::string_view>& pieces_;
  uint8_t segment_ = 0;  // kNumber, kCjk or 0
  size_t at_ = 0;
  size_t gap_ = 0;  // begin of what has not been put out yet
};

}  // namespace

void scan_v3(std::string_view text, int digits, std::vector<std::string_view>& pieces) {
  Scanner(text, digits, pieces).run();
}

}  // namespace fathom
