#include "fathom/train/data/encode.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

int32_t need(const Tokenizer& tokenizer, std::string_view name) {
  const std::optional<int32_t> id = tokenizer.token_id(name);
  if (!id) {
    throw Error(Code::kInvalidArgument, fmt::format("the tokenizer has no token {}", name),
                "train it with the control tokens of the chat form");
  }
  return *id;
}

}  // namespace

RecordEncoder::RecordEncoder(Tokenizer tokenizer, bool learn_mode)
    : tokenizer_(std::move(tokenizer)),
      learn_mode_(learn_mode),
      bos_(need(tokenizer_, kBosText)),
      eos_(need(tokenizer_, kEosText)),
      user_(tokenizer_.token_id(kUserText).value_or(-1)),
      assistant_(tokenizer_.token_id(kAssistantText).value_or(-1)),
      think_(tokenizer_.token_id(kThinkText).value_or(-1)),
      end_think_(tokenizer_.token_id(kEndThinkText).value_or(-1)) {}

void RecordEncoder::encode_turn(const ChatTurn& turn, bool is_last, EncodedRecord& out) const {
  const auto add_text = [&](const std::string& text) {
    tokenizer_.encode_to(text, AddedTokens::kPlainText, out.tokens);
  };
  switch (turn.role) {
    case Speaker::kSystem:
      add_text(turn.content);
      break;
    case Speaker::kUser:
      out.tokens.push_back(user_);
      add_text(turn.content);
      break;
    case Speaker::kAssistant: {
      const bool thinks = turn.has_thinking && is_last;
      out.tokens.push_back(assistant_);
      out.loss.resize(out.tokens.size(), 0);
      out.tokens.push_back(thinks ? think_ : end_think_);
      out.loss.push_back(learn_mode_ && is_last ? 1 : 0);
      if (thinks) {
        add_text(turn.thinking);
        out.tokens.push_back(end_think_);
      }
      add_text(turn.content);
      out.tokens.push_back(eos_);
      out.loss.resize(out.tokens.size(), turn.has_thinking && !is_last ? 0 : 1);
      return;
    }
  }
  out.loss.resize(out.tokens.size(), 0);
}

EncodedRecord RecordEncoder::encode(const Record& record) const {
  EncodedRecord out;
  out.tokens.push_back(bos_);
  if (!record.is_chat()) {
    tokenizer_.encode_to(record.text, AddedTokens::kPlainText, out.tokens);
    out.tokens.push_back(eos_);
    return out;
  }
  for (const std::string_view name : {kUserText, kAssistantText, kThinkText, kEndThinkText}) {
    need(tokenizer_, name);
  }
  for (size_t i = 0; i < record.chat.size(); ++i) {
    encode_turn(record.chat[i], i + 1 == record.chat.size(), out);
  }
  return out;
}

std::vector<int32_t> RecordEncoder::encode_prompt(const std::vector<ChatTurn>& chat,
                                                  bool thinking) const {
  for (const std::string_view name : {kUserText, kAssistantText, kThinkText, kEndThinkText}) {
    need(tokenizer_, name);
  }
  EncodedRecord out;
  out.tokens.push_back(bos_);
  for (const ChatTurn& turn : chat) encode_turn(turn, false, out);
  out.tokens.push_back(assistant_);
  out.tokens.push_back(thinking ? think_ : end_think_);
  return out.tokens;
}

BatchTokens RecordEncoder::batch_tokens() const {
  const auto id = [&](std::string_view name) { return tokenizer_.token_id(name).value_or(-1); };
  return {.pad = tokenizer_.token_id(kPadText).value_or(eos_),
          .fim_begin = id(kFimBeginText),
          .fim_hole = id(kFimHoleText),
          .fim_end = id(kFimEndText)};
}

uint64_t tokenizer_id(const Tokenizer& tokenizer) {
  uint64_t hash = hash_mix(static_cast<uint64_t>(tokenizer.vocab_size()), 0);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    hash =
        tokenizer.has_token(id) ? hash_bytes(tokenizer.token_bytes(id), hash) : hash_mix(hash, 1);
  }
  return hash;
}

}  // namespace fathom
