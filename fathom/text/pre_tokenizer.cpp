#include "fathom/text/pre_tokenizer.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/text/unicode.h"
#include "fathom/text/utf8.h"
#include "fathom/text/v3_scanner.h"

namespace fathom {
namespace {

using Pieces = std::vector<std::string_view>;

// ByteLevel with use_regex: GPT-2's words.
const char* const kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Collects alternating ranges of one piece and joins them as the behaviour says.
class Joiner {
 public:
  Joiner(PreTokenizer::Behavior behavior, std::string_view piece, Pieces& out)
      : behavior_(behavior), piece_(piece), out_(out) {}

  void add(size_t begin, size_t end, bool matched) {
    using B = PreTokenizer::Behavior;
    if (begin == end) return;
    if (behavior_ == B::kRemoved && matched) return flush();
    const bool join = open_ && ((behavior_ == B::kMergedWithPrevious && matched && !last_) ||
                                (behavior_ == B::kMergedWithNext && last_ && !matched) ||
                                (behavior_ == B::kContiguous && matched == last_));
    if (!join) flush();
    if (!open_) begin_ = begin;
    end_ = end;
    open_ = true;
    last_ = matched;
  }
  void flush() {
    if (open_) out_.push_back(piece_.substr(begin_, end_ - begin_));
    open_ = false;
  }

 private:
  PreTokenizer::Behavior behavior_;
  std::string_view piece_;
  Pieces& out_;
  size_t begin_ = 0, end_ = 0;
  bool open_ = false, last_ = false;
};

void split_piece(const PreTokenizer::Split& split, std::string_view piece, Regex::Scratch& scratch,
                 Pieces& out) {
  Joiner joiner(split.behavior, piece, out);
  size_t done = 0, from = 0;
  while (from <= piece.size()) {
    const auto match = split.pattern.find(piece, from, scratch);
    if (!match) break;
    if (match->begin == match->end) {  // an empty match cuts nothing out
      if (match->end >= piece.size()) break;
      from = match->end;
      utf8_next_unchecked(piece, from);
      continue;
    }
    joiner.add(done, match->begin, split.invert);
    joiner.add(match->begin, match->end, !split.invert);
    done = from = match->end;
  }
  joiner.add(done, piece.size(), split.invert);
  joiner.flush();
}

void split_digits(bool individual, std::string_view piece, Pieces& out) {
  const CharTable& table = CharTable::get();
  size_t begin = 0, at = 0;
  bool in_digits = false;
  while (at < piece.size()) {
    size_t next = at;
    const bool digit = (table[utf8_next_unchecked(piece, next)] & kNumber) != 0;
    if (at > begin && (digit != in_digits || (digit && individual))) {
      out.push_back(piece.substr(begin, at - begin));
      begin = at;
    }
    in_digits = digit;
    at = next;
  }
  if (at > begin) out.push_back(piece.substr(begin, at - begin));
}

PreTokenizer::Behavior read_behavior(const std::string& name) {
  using B = PreTokenizer::Behavior;
  if (name == "Isolated") return B::kIsolated;
  if (name == "Removed") return B::kRemoved;
  if (name == "MergedWithPrevious") return B::kMergedWithPrevious;
  if (name == "MergedWithNext") return B::kMergedWithNext;
  if (name == "Contiguous") return B::kContiguous;
  throw Error(Code::kInvalidArgument, fmt::format("the Split behavior \"{}\" is unknown", name));
}

bool flag(const Json& json, const char* key, bool otherwise) {
  const Json* value = json.find(key);
  return value ? value->as_bool() : otherwise;
}

PreTokenizer::Split read_split(const Json& json, const std::string& what) {
  const Json& pattern = json.at("pattern");
  const Json* regex = pattern.find("Regex");
  return {.pattern = regex ? Regex(oniguruma_to_pcre2(regex->as_string(), what), what)
                           : Regex::literal(pattern.at("String").as_string()),
          .behavior = read_behavior(json.at("behavior").as_string()),
          .invert = flag(json, "invert", false)};
}

bool is_split_on(const Json& json, std::string_view pattern) {
  const Json* type = json.find("type");
  const Json* p = json.find("pattern");
  const Json* regex = p ? p->find("Regex") : nullptr;
  return type && type->as_string() == "Split" && regex && regex->as_string() == pattern &&
         json.at("behavior").as_string() == "Isolated" && !flag(json, "invert", false);
}

// The group size of digits when three steps are the chain of DeepSeek-V3, else 0.
int v3_chain_digits(const Json* steps) {
  if (!is_split_on(steps[1], kV3Cjk) || !is_split_on(steps[2], kV3Words)) return 0;
  if (is_split_on(steps[0], kV3Digits)) return 3;
  return is_split_on(steps[0], kV3SingleDigits) ? 1 : 0;
}

void read_steps(const Json& json, const std::string& what, bool scanner, int depth,
                std::vector<PreTokenizer::Step>& steps) {
  if (json.is_null()) return;
  const std::string& type = json.at("type").as_string();
  if (type == "Sequence") {
    if (depth > 8) throw Error(Code::kInvalidArgument, "Sequences are nested too deeply");
    const std::vector<Json>& items = json.at("pretokenizers").items();
    for (size_t i = 0; i < items.size(); ++i) {
      const int digits = scanner && i + 2 < items.size() ? v3_chain_digits(&items[i]) : 0;
      if (digits > 0) {
        steps.emplace_back(PreTokenizer::V3Chain{digits});
        i += 2;
      } else {
        read_steps(items[i], what, scanner, depth + 1, steps);
      }
    }
  } else if (type == "Split") {
    steps.emplace_back(read_split(json, what));
  } else if (type == "Digits") {
    steps.emplace_back(PreTokenizer::Digits{flag(json, "individual_digits", false)});
  } else if (type == "ByteLevel") {
    if (flag(json, "add_prefix_space", true)) steps.emplace_back(PreTokenizer::PrefixSpace{});
    if (flag(json, "use_regex", true))
      steps.emplace_back(PreTokenizer::Split{Regex(oniguruma_to_pcre2(kGpt2Words, what), what)});
  } else {
    throw Error(Code::kInvalidArgument,
                fmt::format("expected Sequence, Split, Digits or ByteLevel, found \"{}\"", type));
  }
}

}  // namespace

PreTokenizer PreTokenizer::from_json(const Json& json, const std::string& what, Scanner scanner) {
  std::vector<Step> steps;
  try {
    read_steps(json, what, scanner == Scanner::kUse, 0, steps);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: pre_tokenizer: {}", what, e.message()), e.hint());
  }
  return PreTokenizer(std::move(steps));
}

const Pieces& PreTokenizer::split(std::string_view text, Scratch& scratch) const {
  Pieces& pieces = scratch.pieces;
  pieces.clear();
  scratch.owned.clear();
  if (text.empty()) return pieces;
  pieces.push_back(text);
  for (const Step& step : steps_) {
    Pieces& next = scratch.next;
    next.clear();
    for (const std::string_view piece : pieces) {
      if (const auto* split = std::get_if<Split>(&step)) {
        split_piece(*split, piece, scratch.regex, next);
      } else if (const auto* digits = std::get_if<Digits>(&step)) {
        split_digits(digits->individual, piece, next);
      } else if (const auto* v3 = std::get_if<V3Chain>(&step)) {
        scan_v3(piece, v3->digits, next);
      } else {
        next.push_back(
            piece.starts_with(' ') ? piece : scratch.owned.emplace_back(" " + std::string(piece)));
      }
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace fathom
