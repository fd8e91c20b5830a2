#include <doctest/doctest.h>

#include <ctime>

#include "fathom/base/error.h"
#include "fathom/text/test_text.h"
#include "fathom/text/tokenizer.h"
#include "fathom/text/tokenizer_builder.h"

namespace fathom {
namespace {

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kDigits[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// The 256 bytes in reverse order, then these.
std::string ranks(const std::vector<std::string>& more) {
  std::string out;
  int rank = 0;
  const auto line = [&](const std::string& bytes) {
    out += base64(bytes) + " " + std::to_string(rank++) + "\n";
  };
  for (int b = 255; b >= 0; --b) line(std::string(1, static_cast<char>(b)));
  for (const auto& bytes : more) line(bytes);
  return out;
}

const char* const kConfig = R"({"added_tokens_decoder": {
  "261": {"content": "[BOS]", "special": true}, "263": {"content": "<|im_end|>", "special": true}}})";

using Ids = std::vector<int32_t>;

std::vector<std::string> words_of(const Tokenizer& t, std::string_view text) {
  std::vector<std::string> out;
  for (const int32_t id : t.encode(text, AddedTokens::kPlainText))
    out.emplace_back(t.token_bytes(id));
  return out;
}

}  // namespace

TEST_CASE("a tiktoken file merges whatever joins to a token, by that token's rank") {
  // "abc" is reached through "bc", which has the lower rank, though "ab" is a token too.
  const Tokenizer t =
      tiktoken_from_text(ranks({"bc", "ab", "abc", "abcd", "zzz"}), kConfig, "test.model");
  const auto byte = [](char c) { return 255 - static_cast<int32_t>(c); };
  CHECK(t.encode("abc", AddedTokens::kParse) == Ids{258});
  CHECK(t.encode("abd", AddedTokens::kParse) == Ids{257, byte('d')});
  CHECK(t.encode("abce", AddedTokens::kParse) == Ids{258, byte('e')});
  CHECK(t.encode("abcd", AddedTokens::kParse) == Ids{259});
  // Not reachable by merges, but a word that is a token is taken whole.
  CHECK(t.encode("zzz", AddedTokens::kParse) == Ids{260});
}

TEST_CASE("special tokens of a tiktoken checkpoint come from its config, the others by number") {
  const Tokenizer t =
      tiktoken_from_text(ranks({"bc", "ab", "abc", "abcd", "zzz"}), kConfig, "test");
  CHECK(t.token_id("[BOS]") == 261);
  CHECK(t.token_id("<|im_end|>") == 263);
  CHECK(t.token_id("<|reserved_token_262|>") == 262);
  CHECK(t.is_special(263));
  CHECK(t.vocab_size() == 261 + 256);
  CHECK(t.encode("[BOS]<|im_end|>", AddedTokens::kParse) == Ids{261, 263});
}

TEST_CASE("Kimi's words: Han apart, capitals with what follows, digits by three") {
  const Tokenizer t =
      tiktoken_from_text(ranks({"Hello", " World", "HTTPServer", "\u4F60\u597D", "don't", "123",
                                "45", "\u4E2D", "  ", "!!\n", "abc"}),
                         "{}", "test");
  using Words = std::vector<std::string>;
  CHECK(words_of(t, "Hello World") == Words{"Hello", " World"});
  CHECK(words_of(t, "HTTPServer12345") == Words{"HTTPServer", "123", "45"});
  CHECK(words_of(t, "\u4F60\u597Ddon't") == Words{"\u4F60\u597D", "don't"});
  CHECK(words_of(t, "abc\u4E2Dabc!!\nabc") == Words{"abc", "\u4E2D", "abc", "!!\n", "abc"});
  Rng rng(4, "kimi");
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(rng, 40);
    CHECK(t.decode(t.encode(text, AddedTokens::kPlainText)) == text);
  }
  const std::string longest(1 << 20, 'x');
  CHECK(t.decode(t.encode(longest, AddedTokens::kPlainText)) == longest);
}

TEST_CASE("lines of a tiktoken file that do not fit are named") {
  for (const char* bad : {"YQ== x", "YQ==", "Y 1", "!!!! 1", "YQ== 123456789"})
    CHECK_THROWS_WITH_AS(tiktoken_from_text("Yg== 0\n" + std::string(bad), "{}", "f"),
                         doctest::Contains("f:2"), Error);
  CHECK_THROWS_AS(tiktoken_from_text("", "{}", "f"), Error);
  CHECK_THROWS_AS(tiktoken_from_text("YQ== 0", R"({"added_tokens_decoder": {"x": {}}})", "f"),
                  Error);
  CHECK_THROWS_AS(tiktoken_from_text("YQ== 0\nYg== 0", "{}", "f"), Error);
}

TEST_CASE("a megabyte without words is encoded in seconds with Kimi's pattern") {
  const Tokenizer t = tiktoken_from_text(ranks({"aa", "aaaa", "  "}), kConfig, "test.model");
  for (const std::string& unit : {std::string("a"), std::string(" "), std::string("\n "),
                                  std::string("A"), std::string("("), std::string("\u4E2D")}) {
    std::string text;
    while (text.size() < (1u << 20)) text += unit;
    const std::clock_t begin = std::clock();  // of this process: others do not count
    CHECK(t.decode(t.encode(text, AddedTokens::kPlainText)) == text);
    CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);
  }
}

}  // namespace fathom
