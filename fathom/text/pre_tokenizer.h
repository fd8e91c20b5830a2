// The pre_tokenizer member of a tokenizer.json: cuts text into the words that byte-pair merging
// never crosses.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fathom/text/regex.h"

namespace fathom {

class Json;

class PreTokenizer {
 public:
  enum class Behavior : uint8_t {
    kIsolated,
    kRemoved,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous,
  };
  struct Split {
    Regex pattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };
  struct Digits {
    bool individual = false;
  };
  struct PrefixSpace {};  // ByteLevel's add_prefix_space
  struct V3Chain {        // the three Splits of DeepSeek-V3 by the hand-written scanner
    int digits = 3;       // most digits in a word, 3 or 1
  };
  using Step = std::variant<Split, Digits, PrefixSpace, V3Chain>;

  // Working memory of one thread; the pieces may point into it until the next call.
  struct Scratch {
    Regex::Scratch regex;
    std::vector<std::string_view> pieces, next;
    std::deque<std::string> owned;
  };

  // `scanner` false keeps regular expressions where a scanner would do (for comparison). Throws
  // Error for steps that it does not know.
  enum class Scanner : uint8_t { kUse, kAvoid };
  static PreTokenizer from_json(const Json& json, const std::string& what,
                                Scanner scanner = Scanner::kUse);
  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  // The chain of DeepSeek-V3; with `digits` 1 every digit is a word.
  static PreTokenizer v3(int digits = 3) { return PreTokenizer({V3Chain{digits}}); }

  // `text` must be valid UTF-8. The result lives in `scratch`.
  const std::vector<std::string_view>& split(std::string_view text, Scratch& scratch) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace fathom
