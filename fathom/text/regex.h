// Regular expressions of tokenizer files (Oniguruma's dialect) on PCRE2 with JIT, UTF and Unicode
// properties.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace fathom {

// Rewrites the parts where the two dialects differ: \s and \w get Oniguruma's exact sets, scripts
// mean Script and not Script_Extensions. Throws Error for what has no equal here (class
// intersection, nested classes, \h).
std::string oniguruma_to_pcre2(std::string_view pattern, const std::string& what);

struct TextSpan {
  size_t begin, end;  // bytes
  bool operator==(const TextSpan&) const = default;
};

// Compiled pattern; immutable and thread-safe. Patterns come from files, so matching work is
// limited: past the limit find() throws Error.
class Regex {
 public:
  // Working memory of one thread.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  // `pattern` in PCRE2's syntax, multi-line anchors as in Ruby; `what` names the source in errors.
  Regex(const std::string& pattern, const std::string& what);
  static Regex literal(std::string_view text);  // matches exactly this text

  // The first match at or after `from`. `text` must be valid UTF-8, the match sees all of it.
  std::optional<TextSpan> find(std::string_view text, size_t from, Scratch& scratch) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace fathom
