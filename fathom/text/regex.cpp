#define PCRE2_CODE_UNIT_WIDTH 8
#include "fathom/text/regex.h"

#include <fmt/core.h>
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKiB = 256 * 1024;
constexpr size_t kJitStackBytes = 4u << 20;

// White_Space and its complement, for use inside a class.
constexpr std::string_view kSpaceSet =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoSpaceSet =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWordSet = R"(\p{L}\p{M}\p{Nd}\p{Pc})";
constexpr std::array<std::string_view, 11> kScripts = {"Han",   "Hiragana", "Katakana",  "Hangul",
                                                       "Latin", "Cyrillic", "Greek",     "Arabic",
                                                       "Thai",  "Hebrew",   "Devanagari"};

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// Walks through a pattern once, copying all but the few constructs that need another spelling.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& what) : in_(pattern), what_(what) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        in_class();
      } else if (c == '[') {
        open_class();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const char* construct) const {
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: the regular expression uses {} at byte {}, which is not supported",
                            what_, construct, at_));
  }

  void open_class() {
    out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == ']') out_ += in_[at_++];  // a literal in first place
    in_class_ = true;
  }

  void in_class() {
    const std::string_view rest = in_.substr(at_);
    if (rest.starts_with("&&")) refuse("an intersection of classes");
    if (rest.starts_with("[:")) {
      const size_t end = rest.find(":]");
      if (end == rest.npos) refuse("an unfinished POSIX class");
      out_ += rest.substr(0, end + 2);
      at_ += end + 2;
      return;
    }
    if (rest[0] == '[') refuse("a nested class");
    if (rest[0] == ']') in_class_ = false;
    out_ += rest[0];
    ++at_;
  }

  void set(std::string_view members) {
    out_ += in_class_ ? std::string(members) : fmt::format("[{}]", members);
    at_ += 2;
  }

  void escape() {
    const char next = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    switch (next) {
      case 's':
        return set(kSpaceSet);
      case 'S':
        return set(kNoSpaceSet);
      case 'w':
        return set(kWordSet);
      case 'W':
        if (in_class_) refuse("\\W inside a class");
        out_ += fmt::format("[^{}]", kWordSet);
        at_ += 2;
        return;
      case 'h':
      case 'H':
        refuse("\\h");
      case 'p':
      case 'P':
        return property();
      default:
        out_ += in_.substr(at_, 2);
        at_ += 2;
    }
  }

  void property() {
    const std::string_view rest = in_.substr(at_);
    const size_t end = rest.find('}');
    if (rest.size() < 3 || rest[2] != '{' || end == rest.npos) {
      out_ += rest.substr(0, 2);
      at_ += 2;
      return;
    }
    std::string_view name = rest.substr(3, end - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const bool script = std::find(kScripts.begin(), kScripts.end(), name) != kScripts.end();
    out_ += fmt::format("\\{}{{{}{}{}}}", rest[1], negated ? "^" : "", script ? "sc:" : "", name);
    at_ += end + 1;
  }

  std::string_view in_;
  const std::string& what_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& what) {
  return Translator(pattern, what).run();
}

struct Regex::Impl {
  pcre2_code* code = nullptr;
  std::string what;
  ~Impl() { pcre2_code_free(code); }
};

struct Regex::Scratch::Impl {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(64 * 1024, kJitStackBytes, nullptr);
  Impl() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Impl() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
};

Regex::Scratch::Scratch() : impl_(std::make_unique<Impl>()) {}
Regex::Scratch::~Scratch() = default;
Regex::Scratch::Scratch(Scratch&&) noexcept = default;
Regex::Scratch& Regex::Scratch::operator=(Scratch&&) noexcept = default;

Regex::Regex(const std::string& pattern, const std::string& what) {
  auto impl = std::make_shared<Impl>();
  impl->what = what;
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  impl->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!impl->code)
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected a regular expression, found \"{}\" (at byte {}: {})",
                            what, pattern, offset, pcre2_message(error)));
  pcre2_jit_compile(impl->code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter does the work
  impl_ = std::move(impl);
}

Regex Regex::literal(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c)))
      quoted += fmt::format("\\x{{{:x}}}", static_cast<unsigned>(c));
    else
      quoted += c;
  }
  return Regex(quoted, "a literal pattern");
}

std::optional<TextSpan> Regex::find(std::string_view text, size_t from, Scratch& scratch) const {
  const int rc =
      pcre2_match(impl_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, scratch.impl_->match, scratch.impl_->context);
  if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (rc < 0)
    throw Error(Code::kExhausted, fmt::format("{}: the regular expression gave up: {}", impl_->what,
                                              pcre2_message(rc)));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.impl_->match);
  return TextSpan{range[0], range[1]};
}

}  // namespace fathom
