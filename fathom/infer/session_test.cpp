// Streaming text: parts join to the whole however tokens are cut; stop strings, thinking,
// interruption.
#include "fathom/infer/session.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "fathom/infer/infer_testing.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

// Bytes, the chat markers and a few merges, one of them across the front of a marker.
Tokenizer small_tokenizer() {
  BpeTrainOptions o{.vocab_size = 290};
  for (const std::string_view t : kChatSpecialTokens) o.special_tokens.emplace_back(t);
  BpeTrainer trainer(o);
  for (int i = 0; i < 4; ++i) trainer.add("hello hello well then \u00e9t\u00e9 </th <thin ok");
  return Tokenizer::from_json(trainer.train(), "test");
}

TextDelta stream_all(const Tokenizer& t, const std::vector<int32_t>& ids, ThinkingMode mode,
                     std::vector<std::string> stop, std::string* stopped_by = nullptr) {
  TextStream stream(t, mode, std::move(stop));
  TextDelta all;
  for (const int32_t id : ids) {
    const TextDelta d = stream.feed(id);
    CHECK(utf8_valid_prefix(d.content) == d.content.size());
    CHECK(utf8_valid_prefix(d.thinking) == d.thinking.size());
    all += d;
  }
  all += stream.flush();
  if (stopped_by) *stopped_by = stream.stop();
  return all;
}

// One token for each byte: markers and characters arrive in pieces.
std::vector<int32_t> byte_tokens(const Tokenizer& t, std::string_view text) {
  std::vector<int32_t> ids;
  for (const char& c : text) ids.push_back(*t.token_id(std::string_view(&c, 1)));
  return ids;
}

TEST_CASE("thinking and answer are told apart however the markers are cut") {
  const Tokenizer t = small_tokenizer();
  const std::string text = "so <b then</think>Answer \u00e9 <thin air> <think>more</think> end</th";
  const std::vector<int32_t> pieces[] = {byte_tokens(t, text), t.encode(text, AddedTokens::kParse),
                                         t.encode(text, AddedTokens::kPlainText)};
  for (const auto& ids : pieces) {
    const TextDelta open = stream_all(t, ids, ThinkingMode::kOpen, {});
    CHECK(open.thinking == "so <b thenmore");
    CHECK(open.content == "Answer \u00e9 <thin air>  end</th");
    const TextDelta closed = stream_all(t, ids, ThinkingMode::kClosed, {});
    CHECK(closed.thinking == "more");
    CHECK(closed.content == "so <b then</think>Answer \u00e9 <thin air>  end</th");
    CHECK(stream_all(t, ids, ThinkingMode::kRaw, {}).content == text);
  }
}

TEST_CASE("stop strings end the answer and are ignored in thinking") {
  const Tokenizer t = small_tokenizer();
  const auto ids = byte_tokens(t, "stop? no</think>one two stop three");
  std::string by;
  const TextDelta d = stream_all(t, ids, ThinkingMode::kOpen, {"stop", "xyz"}, &by);
  CHECK(d.thinking == "stop? no");
  CHECK(d.content == "one two ");
  CHECK(by == "stop");
  CHECK(stream_all(t, ids, ThinkingMode::kRaw, {"stop"}, &by).content == "");
  CHECK(stream_all(t, ids, ThinkingMode::kRaw, {"three!"}, &by).content ==
        "stop? no</think>one two stop three");
  CHECK(by == "");
}

struct Collector final : TextSink {
  TextDelta all;
  size_t num_puts = 0, interrupt_after = SIZE_MAX;
  Session* session = nullptr;
  void put(const TextDelta& d) override {
    CHECK(utf8_valid_prefix(d.content) == d.content.size());
    all += d;
    if (++num_puts == interrupt_after) session->interrupt();
  }
};

struct Fixture {
  testing::Machine m;
  ModelConfig config = testing::family_config("v32-nano");
  Tokenizer tokenizer = small_tokenizer();
  Model model;
  Fixture() {
    config.vocab_size = tokenizer.vocab_size();
    model = testing::make_model(m, config);
  }
};

TEST_CASE("a session streams what its tokens decode to") {
  Fixture f;
  Engine engine(f.m.ctx, f.model, {.num_pages = 16});
  Session session(engine, f.tokenizer);
  session.append({5, 6, 7});
  Collector sink;
  const Generation g = session.generate({.seed = 1, .max_tokens = 100}, ThinkingMode::kRaw, &sink);
  CHECK(g.finished == FinishReason::kLength);
  CHECK(g.tokens.size() == 100);
  CHECK(g.logp.size() == 100);
  CHECK(g.content == f.tokenizer.decode(g.tokens));
  CHECK(sink.all.content == g.content);
  CHECK(session.tokens().size() == 103);

  // The same with an end token and with a stop string taken from the text.
  session.rewind(3);
  const SampleParams ends{.seed = 1, .max_tokens = 100, .stop_ids = {g.tokens[40]}};
  const Generation ended = session.generate(ends, ThinkingMode::kRaw, nullptr);
  CHECK(ended.finished == FinishReason::kStop);
  CHECK(ended.tokens.back() == g.tokens[40]);
  CHECK(session.tokens().size() == 3 + ended.tokens.size() - 1);
  session.rewind(3);
  const std::string stop(f.tokenizer.decode(std::span(g.tokens).subspan(50, 4)));
  const SampleParams stops{.seed = 1, .max_tokens = 100, .stop = {stop}};
  const Generation stopped = session.generate(stops, ThinkingMode::kRaw, nullptr);
  CHECK(stopped.finished == FinishReason::kStop);
  CHECK(stopped.stop == stop);
  CHECK(stopped.content == g.content.substr(0, g.content.find(stop)));
  CHECK(stopped.tokens.size() < 60);
}

TEST_CASE("an interrupted session goes on as if nothing had happened, from its cache") {
  Fixture f;
  Engine whole_engine(f.m.ctx, f.model, {.num_pages = 16});
  Session whole(whole_engine, f.tokenizer);
  whole.append({5, 6, 7});
  const SampleParams params{.seed = 9, .max_tokens = 160};
  const Generation want = whole.generate(params, ThinkingMode::kRaw, nullptr);

  Engine engine(f.m.ctx, f.model, {.num_pages = 16});
  Session session(engine, f.tokenizer);
  session.append({5, 6, 7});
  Collector sink;
  sink.session = &session;
  sink.interrupt_after = 90;
  const Generation first = session.generate(params, ThinkingMode::kRaw, &sink);
  CHECK(first.finished == FinishReason::kCancelled);
  CHECK(first.tokens.size() >= 90);
  CHECK(first.tokens.size() < 160);
  CHECK(engine.idle());
  SampleParams rest = params;
  rest.max_tokens -= static_cast<int64_t>(first.tokens.size());
  const Generation second = session.generate(rest, ThinkingMode::kRaw, nullptr);
  CHECK(engine.stats().num_reused_tok >= 64);
  std::vector<int32_t> tokens = first.tokens;
  tokens.insert(tokens.end(), second.tokens.begin(), second.tokens.end());
  CHECK(tokens == want.tokens);
}

TEST_CASE("a user's turn has the published format; forged markers stay text") {
  const Tokenizer t = small_tokenizer();
  const auto turn = encode_user_turn(t, "hi <think>", true, true);
  CHECK(t.decode(turn) == std::string(kBosText) + std::string(kUserText) + "hi <think>" +
                              std::string(kAssistantText) + "<think>");
  CHECK(turn.front() == 0);
  CHECK(turn.back() == *t.token_id(kThinkText));
  CHECK(std::count(turn.begin(), turn.end(), turn.back()) == 1);
  CHECK(t.decode(encode_user_turn(t, "x", false, false)) ==
        std::string(kUserText) + "x" + std::string(kAssistantText) + "</think>");
}

TEST_CASE("a text ends at the config's tokens and at the tokenizer's end of sentence") {
  const Tokenizer t = small_tokenizer();
  ModelConfig c;
  c.eos_token_id = {7};
  CHECK(end_tokens(c, t) == std::vector<int32_t>{7, 1});
}

}  // namespace
}  // namespace fathom
