// Finds the string constants of a Python source without running it.
#include <algorithm>

#include "fathom/text/chat_template.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

bool is_name_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<signed char>(c) < 0;
}

class Scanner {
 public:
  explicit Scanner(std::string_view source) : in_(source) {}

  std::vector<std::string> run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '#') {
        at_ = std::min(in_.find('\n', at_), in_.size());
      } else if (c == '"' || c == '\'') {
        literal("");
      } else if (is_name_char(c)) {
        name_or_prefix();
      } else {
        if (c == '\n' && depth_ == 0) joins_ = false;
        if (c == '(' || c == '[' || c == '{') ++depth_;
        if (c == ')' || c == ']' || c == '}') depth_ = std::max(0, depth_ - 1);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\\') joins_ = false;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  void name_or_prefix() {
    const size_t begin = at_;
    while (at_ < in_.size() && is_name_char(in_[at_])) ++at_;
    std::string word(in_.substr(begin, at_ - begin));
    const bool quote = at_ < in_.size() && (in_[at_] == '"' || in_[at_] == '\'');
    std::transform(word.begin(), word.end(), word.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (quote && word.size() <= 2 && word.find_first_not_of("rbfu") == word.npos)
      literal(word);
    else
      joins_ = false;
  }

  void literal(const std::string& prefix) {
    const char quote = in_[at_];
    const std::string three(3, quote);
    const bool triple = in_.substr(at_).starts_with(three);
    at_ += triple ? 3 : 1;
    const bool raw = prefix.find('r') != prefix.npos;
    std::string value;
    while (at_ < in_.size()) {
      if (triple ? in_.substr(at_).starts_with(three) : in_[at_] == quote) break;
      if (!triple && in_[at_] == '\n') break;  // unfinished
      if (in_[at_] == '\\' && at_ + 1 < in_.size())
        escape(raw, value);
      else
        value += in_[at_++];
    }
    at_ = std::min(in_.size(), at_ + (triple ? 3 : 1));
    if (prefix.find_first_of("bf") != prefix.npos) {
      joins_ = false;
    } else if (joins_) {
      out_.back() += value;
    } else {
      out_.push_back(std::move(value));
      joins_ = true;
    }
  }

  void escape(bool raw, std::string& value) {
    const char c = in_[at_ + 1];
    if (raw) {
      value += in_.substr(at_, 2);
      at_ += 2;
      return;
    }
    at_ += 2;
    switch (c) {
      case '\n':
        return;
      case 'n':
        value += '\n';
        return;
      case 't':
        value += '\t';
        return;
      case 'r':
        value += '\r';
        return;
      case '\\':
      case '\'':
      case '"':
        value += c;
        return;
      case 'x':
        return code_point(2, c, value);
      case 'u':
        return code_point(4, c, value);
      case 'U':
        return code_point(8, c, value);
      default:
        value += '\\';
        value += c;
    }
  }

  void code_point(size_t digits, char letter, std::string& value) {
    const std::string hex(in_.substr(at_, digits));
    const bool good =
        hex.size() == digits && hex.find_first_not_of("0123456789abcdefABCDEF") == hex.npos;
    const unsigned long code = good ? std::stoul(hex, nullptr, 16) : 0xD800;
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      value += '\\';
      value += letter;
      return;
    }
    append_utf8(static_cast<char32_t>(code), value);
    at_ += digits;
  }

  std::string_view in_;
  size_t at_ = 0;
  int depth_ = 0;       // of brackets; inside them a line end does not end an expression
  bool joins_ = false;  // a literal here continues the last one
  std::vector<std::string> out_;
};

}  // namespace

std::vector<std::string> python_string_constants(std::string_view source) {
  return Scanner(source).run();
}

}  // namespace fathom
