#include "fathom/text/bpe_trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/test_text.h"
#include "fathom/text/tokenizer.h"

namespace fathom {
namespace {

std::vector<std::string> texts() {
  Rng rng(2, "trainer");
  std::vector<std::string> out;
  for (int i = 0; i < 200; ++i) {
    out.push_back("low lower lowest new newer newest wide wider 12345 \u4F60\u597D " +
                  std::to_string(rng.below(1000)));
    out.push_back(random_text(rng, 30));
  }
  return out;
}

std::string train(const std::vector<std::string>& from, BpeTrainOptions options) {
  BpeTrainer trainer(std::move(options));
  for (const auto& text : from) trainer.add(text);
  return trainer.train();
}

}  // namespace

TEST_CASE("training does not depend on the order of the texts") {
  std::vector<std::string> t = texts();
  const std::string a = train(t, {.vocab_size = 500});
  std::reverse(t.begin(), t.end());
  CHECK(train(t, {.vocab_size = 500}) == a);
}

TEST_CASE("the most frequent pair is merged first, ties by the smaller ids") {
  const std::string file = train({"abab abab cd cd"}, {.vocab_size = 260, .min_frequency = 1});
  const Json model = Json::parse(file, "trained").at("model");
  // "abab" once and " abab" once: a b stands four times; then ab ab (twice), against " " ab, c d
  // and " " c (once or twice).
  CHECK(model.at("merges").items()[0].as_string() == "a b");
  CHECK(model.at("merges").items().size() == 4);
}

TEST_CASE("the merges equal those of counting all pairs anew each time") {
  Rng rng(6, "naive trainer");
  for (int round = 0; round < 20; ++round) {
    // Words of few letters, so that merges overlap, repeat and tie. Spaces between them stay single
    // tokens' words.
    std::string text;
    std::vector<std::vector<std::string>> words;
    for (int n = 0; n < 60; ++n) {
      std::vector<std::string> word;
      for (uint64_t k = 1 + rng.below(9); k > 0; --k)
        word.push_back(std::string(1, "abc"[rng.below(3)]));
      for (const auto& letter : word) text += letter;
      text += '\n';
      words.push_back(word);
    }
    std::vector<std::string> want;
    std::map<std::string, int> id;  // by order of creation; letters before merged tokens
    for (const char* letter : {"a", "b", "c"}) id.emplace(letter, static_cast<int>(id.size()));
    while (want.size() < 40) {
      std::map<std::pair<int, int>, std::pair<int, std::string>> counts;
      for (const auto& w : words)
        for (size_t i = 0; i + 1 < w.size(); ++i) {
          auto& [count, pair] = counts[{id.at(w[i]), id.at(w[i + 1])}];
          ++count;
          pair = w[i] + " " + w[i + 1];
        }
      const auto best = std::max_element(counts.begin(), counts.end(), [](auto& x, auto& y) {
        return x.second.first <
               y.second.first;  // of equal counts the first, which has the smaller ids
      });
      if (best == counts.end() || best->second.first < 2) break;
      want.push_back(best->second.second);
      const size_t blank = want.back().find(' ');
      const std::string left = want.back().substr(0, blank), right = want.back().substr(blank + 1);
      id.emplace(left + right, static_cast<int>(id.size()));
      for (auto& w : words)
        for (size_t i = 0; i + 1 < w.size(); ++i) {
          if (w[i] != left || w[i + 1] != right) continue;
          w[i] += right;
          w.erase(w.begin() + static_cast<ptrdiff_t>(i) + 1);
        }
    }
    std::vector<std::string> got;
    const Json file = Json::parse(train({text}, {.vocab_size = 1000}), "trained");
    for (const Json& m : file.at("model").at("merges").items()) got.push_back(m.as_string());
    got.resize(std::min(got.size(), want.size()));
    CHECK(got == want);
  }
}

TEST_CASE("a trained file is read back with the same ids and special tokens in place") {
  const std::string file =
      train(texts(), {.vocab_size = 600,
                      .special_tokens = {kChatSpecialTokens.begin(), kChatSpecialTokens.end()}});
  const Tokenizer t = Tokenizer::from_json(file, "trained");
  CHECK(t.vocab_size() <= 600);
  CHECK(t.vocab_size() > 300);
  for (size_t i = 0; i < kChatSpecialTokens.size(); ++i) {
    CHECK(t.token_id(kChatSpecialTokens[i]) == static_cast<int32_t>(i));
    CHECK(t.is_special(static_cast<int32_t>(i)));
  }
  CHECK(t.encode("lowest newest", AddedTokens::kPlainText).size() <= 4);
}

TEST_CASE("digits stay apart when asked for, and group by three otherwise") {
  const std::vector<std::string> t(50, "1234 1234 1234");
  const auto count = [&](bool individual) {
    return Tokenizer::from_json(train(t, {.vocab_size = 300, .individual_digits = individual}),
                                "digits")
        .encode("1234", AddedTokens::kPlainText)
        .size();
  };
  CHECK(count(true) == 4);
  CHECK(count(false) == 2);
}

TEST_CASE("plain text never becomes a special token") {
  const std::vector<std::string> t(50, "think <think> think <think>");
  const Tokenizer tokenizer = Tokenizer::from_json(
      train(t, {.vocab_size = 300, .special_tokens = {"think", "<think>"}}), "special");
  for (const int32_t id : tokenizer.encode("think <think> think", AddedTokens::kPlainText))
    CHECK_FALSE(tokenizer.is_added(id));
}

TEST_CASE("wrong trainer options are errors") {
  CHECK_THROWS_AS(BpeTrainer({.vocab_size = 255}), Error);
  CHECK_THROWS_AS(BpeTrainer({.vocab_size = 500, .special_tokens = {"xx", "xx"}}), Error);
  CHECK_THROWS_AS(BpeTrainer({.vocab_size = 500, .special_tokens = {"x"}}), Error);
  BpeTrainer trainer({});
  CHECK_THROWS_AS(trainer.add("\xFF"), Error);
}

}  // namespace fathom
