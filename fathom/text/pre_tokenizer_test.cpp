#include "fathom/text/pre_tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/text/test_text.h"
#include "fathom/text/unicode.h"
#include "fathom/text/v3_scanner.h"

namespace fathom {
namespace {

using Words = std::vector<std::string>;

Words split(const PreTokenizer& p, std::string_view text) {
  PreTokenizer::Scratch scratch;
  const auto& pieces = p.split(text, scratch);
  return {pieces.begin(), pieces.end()};
}

PreTokenizer from(const std::string& json) {
  return PreTokenizer::from_json(Json::parse(json, "test"), "test");
}

PreTokenizer v3_by_regex(int digits) {
  const std::string_view first = digits == 3 ? kV3Digits : kV3SingleDigits;
  std::vector<PreTokenizer::Step> steps;
  for (const std::string_view pattern : {first, kV3Cjk, kV3Words})
    steps.emplace_back(PreTokenizer::Split{Regex(oniguruma_to_pcre2(pattern, "v3"), "v3")});
  return PreTokenizer(std::move(steps));
}

std::string split_json(const std::string& pattern, const std::string& behavior,
                       const std::string& extra = "") {
  return R"({"type": "Split", "pattern": )" + pattern + R"(, "behavior": ")" + behavior + "\"" +
         extra + "}";
}

std::string v2_json() {
  return R"({"type": "Sequence", "pretokenizers": [)" +
         split_json(R"({"Regex": "[\r\n]"})", "Isolated") + "," +
         split_json(R"({"Regex": "\\s?[A-Za-z\u00b5\u00c0-\u00d6]+"})", "Isolated") + "," +
         split_json(R"({"Regex": "\\s?[!-/:-~\uff01-\uff0f]+"})", "Isolated") + "," +
         split_json(R"({"Regex": "\\s+$"})", "Isolated") + "," +
         split_json(R"({"Regex": "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"})", "Isolated") +
         "," +
         R"({"type": "Digits", "individual_digits": true},
             {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
}

std::string glm_json() {
  return R"({"type": "Sequence", "pretokenizers": [)" +
         split_json(
             R"({"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|)"
             R"(\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"})",
             "Isolated") +
         R"(, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
}

}  // namespace

TEST_CASE("the hand-written V3 scanner equals the regular expressions on random Unicode") {
  Rng rng(11, "scanner");
  for (const int digits : {3, 1}) {
    const PreTokenizer regex = v3_by_regex(digits), scanner = PreTokenizer::v3(digits);
    PreTokenizer::Scratch a, b;
    for (int i = 0; i < 40000; ++i) {
      const std::string text = random_text(rng, 24);
      const auto &want = regex.split(text, a), &got = scanner.split(text, b);
      if (want == got) continue;
      const auto [w, g] = std::mismatch(want.begin(), want.end(), got.begin(), got.end());
      FAIL_CHECK("in " << json_quote(text) << ": expected the piece "
                       << (w == want.end() ? "none" : json_quote(*w)) << ", got "
                       << (g == got.end() ? "none" : json_quote(*g)));
      break;
    }
  }
}

TEST_CASE("the character table equals PCRE2's properties on every code point") {
  const CharTable& table = CharTable::get();
  const std::pair<const char*, uint8_t> classes[] = {{"\\p{L}", kLetter}, {"\\p{M}", kMark},
                                                     {"\\p{N}", kNumber}, {"\\p{P}", kPunctuation},
                                                     {"\\p{S}", kSymbol}, {"\\s", kSpace}};
  Regex::Scratch scratch;
  for (const auto& [pattern, bit] : classes) {
    const Regex regex(oniguruma_to_pcre2(pattern, "class"), "class");
    size_t wrong = 0;
    for (char32_t code = 0; code <= 0x10FFFF; ++code) {
      if (code >= 0xD800 && code <= 0xDFFF) continue;
      std::string text;
      append_utf8(code, text);
      wrong += regex.find(text, 0, scratch).has_value() != ((table[code] & bit) != 0);
    }
    CHECK_MESSAGE(wrong == 0, pattern);
  }
}

TEST_CASE("Split behaviours follow their names") {
  const std::string dash = R"({"String": "-"})";
  const std::string text = "the-final--countdown";
  CHECK(split(from(split_json(dash, "Isolated")), text) ==
        Words{"the", "-", "final", "-", "-", "countdown"});
  CHECK(split(from(split_json(dash, "Removed")), text) == Words{"the", "final", "countdown"});
  CHECK(split(from(split_json(dash, "MergedWithPrevious")), text) ==
        Words{"the-", "final-", "-", "countdown"});
  CHECK(split(from(split_json(dash, "MergedWithNext")), text) ==
        Words{"the", "-final", "-", "-countdown"});
  CHECK(split(from(split_json(dash, "Contiguous")), text) ==
        Words{"the", "-", "final", "--", "countdown"});
  CHECK(split(from(split_json(R"({"Regex": "[a-z]+"})", "Removed", ", \"invert\": true")), text) ==
        Words{"the", "final", "countdown"});
  CHECK_THROWS_AS(from(split_json(dash, "Isolatd")), Error);
}

TEST_CASE("Digits and ByteLevel cut as in their definitions") {
  CHECK(split(from(R"({"type": "Digits", "individual_digits": true})"), "a12b") ==
        Words{"a", "1", "2", "b"});
  CHECK(split(from(R"({"type": "Digits", "individual_digits": false})"), "12a345") ==
        Words{"12", "a", "345"});
  CHECK(split(from(R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})"),
              "I'm  12") == Words{" I", "'m", " ", " 12"});
  CHECK(split(from(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})"),
              "a b") == Words{"a b"});
}

TEST_CASE("the chain of V2 isolates line ends, words, punctuation, CJK and digits") {
  const PreTokenizer v2 = from(v2_json());
  CHECK(split(v2, "Hi, you 12!\n\n  x\u4F60\u597D  ") ==
        Words{"Hi", ",", " you", " ", "1", "2", "!", "\n", "\n", " ", " x", "\u4F60\u597D", "  "});
}

TEST_CASE("GLM's words: contractions whole, one character before letters, digits by three") {
  CHECK(split(from(glm_json()), "I'll do 12345 (x)!\n\n  caf\u00E9 \u4F60\u597D ") ==
        Words{"I", "'ll", " do", " ", "123", "45", " (", "x", ")!\n\n", " ", " caf\u00E9",
              " \u4F60\u597D", " "});
}

TEST_CASE("a megabyte without words is cut in seconds by the patterns of V2 and GLM") {
  for (const std::string& json : {v2_json(), glm_json()}) {
    const PreTokenizer p = from(json);
    for (const std::string& unit : {std::string("a"), std::string(" "), std::string("\n "),
                                    std::string("("), std::string("1"), std::string("\u4E2D")}) {
      std::string text;
      while (text.size() < (1u << 20)) text += unit;
      const std::clock_t begin = std::clock();  // of this process: others do not count
      size_t total = 0;
      for (const std::string& word : split(p, text + "x")) total += word.size();
      CHECK(total == text.size() + 1);
      CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);
    }
  }
}

TEST_CASE("white space is Unicode's, not PCRE2's") {
  const Regex space(oniguruma_to_pcre2("\\s", "s"), "s");
  Regex::Scratch scratch;
  CHECK(space.find("\u0085", 0, scratch).has_value());
  CHECK_FALSE(space.find("\u180E", 0, scratch).has_value());
  CHECK(Regex(oniguruma_to_pcre2("[^\\S]", "s"), "s").find("\u3000", 0, scratch).has_value());
}

TEST_CASE("regular expressions that mean something else here are refused") {
  for (const char* pattern : {"[a&&b]", "[a[b]]", "\\h", "[\\W]"})
    CHECK_THROWS_AS(oniguruma_to_pcre2(pattern, "test"), Error);
  CHECK(oniguruma_to_pcre2("[[:alpha:]\\]]", "test") == "[[:alpha:]\\]]");
}

TEST_CASE("a pattern that backtracks without end gives up with an error") {
  const Regex evil("(a+)+$", "evil");
  Regex::Scratch scratch;
  CHECK_THROWS_AS(evil.find(std::string(60, 'a') + "b", 0, scratch), Error);
}

}  // namespace fathom
