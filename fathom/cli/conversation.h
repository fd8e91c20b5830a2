// A conversation with one model: messages in, an answer out as events. Knows chat formats and tool
// calls, nothing of terminals.
#pragma once

#include <string>
#include <vector>

#include "fathom/infer/session.h"
#include "fathom/text/chat_format.h"
#include "fathom/text/completion_stream.h"

namespace fathom {

struct ChatSettings {
  ChatFormat format = ChatFormat::kV32;
  bool thinking = true;  // where the format has it
  Retention retention = Retention::kV32;
  SampleParams sample;  // its stop_ids are filled in here
};

class ChatSink {
 public:
  virtual ~ChatSink() = default;
  virtual void put(const StreamEvent& event) = 0;
};

struct ChatAnswer {
  Message message;  // without calls that were cut off
  FinishReason finished = FinishReason::kNone;
  size_t num_prompt = 0, num_tokens = 0;
  bool malformed = false;  // markup was repaired or left out
};

// interrupt() may come from a signal handler, everything else from the engine's thread.
class Conversation {
 public:
  Conversation(Engine& engine, Tokenizer tokenizer, ChatTemplate words, ChatSettings settings);

  ChatSettings settings;
  std::string system;       // the first message; empty: none
  std::vector<Json> tools;  // function objects

  // Adds the user's message and the model's answer. Throws Error, and leaves the conversation as it
  // was, when the text is not UTF-8 or the context too small. `sink` may be null.
  ChatAnswer ask(const std::string& text, ChatSink* sink);
  // Calls of the last answer that wait for a result, in order.
  std::vector<ToolCall> open_calls() const;
  // The result of the first open call; after the last one the model goes on. False: more are open.
  bool give_result(const std::string& text, ChatSink* sink, ChatAnswer* answer);
  void interrupt() { session_.interrupt(); }

  const std::vector<Message>& messages() const { return messages_; }  // without the system's
  std::vector<Message> all_messages() const;                          // with it
  // Throws Error when the format cannot render them.
  void set_messages(std::vector<Message> messages);
  void reset() { messages_.clear(); }

 private:
  std::vector<TextSegment> render() const;
  ChatAnswer answer(ChatSink* sink);

  Engine& engine_;
  Tokenizer tokenizer_;
  ChatTemplate words_;
  Session session_;
  std::vector<Message> messages_;
};

}  // namespace fathom
