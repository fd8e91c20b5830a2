// Text to token ids and back, driven by the files of a checkpoint: Hugging Face tokenizer.json of
// type BPE, or a tiktoken file. Nothing is ever added to the text silently (no BOS), whatever the
// file's post_processor says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Whether <|User|>-like markers in the text become their tokens. With kPlainText they are ordinary
// characters, so that text from outside cannot forge roles.
enum class AddedTokens : uint8_t { kPlainText, kParse };

// A piece of a rendered conversation.
struct TextSegment {
  std::string text;
  bool markup =
      false;  // written by a template: added tokens in it are tokens; else it is someone's text
  bool generated = false;  // by the model: what training learns
};

struct EncodedSegments {
  std::vector<int32_t> ids;
  std::vector<uint8_t> generated;  // per token, 0 or 1
};

// Immutable and thread-safe; copies share the tables.
class Tokenizer {
 public:
  // `what` names the source in errors. Throws Error for what the engine does not support or the
  // file does not hold.
  static Tokenizer from_json(std::string_view text, const std::string& what);
  // A folder with tokenizer.json or tiktoken.model (beside tokenizer_config.json), or one of those
  // files.
  static Tokenizer load(const std::string& folder_or_file);

  // Throws Error when `text` is not valid UTF-8, naming the byte; see utf8_lossy.
  std::vector<int32_t> encode(std::string_view text, AddedTokens mode) const;
  // The same, appended to `out`.
  void encode_to(std::string_view text, AddedTokens mode, std::vector<int32_t>& out) const;

  // The ids of the joined text, except that added tokens are found in markup only. Text on both
  // sides of a segment border merges as if there were none, so without markers in plain text this
  // equals encode(joined, kParse).
  EncodedSegments encode_segments(std::span<const TextSegment> segments) const;

  // Valid UTF-8: malformed parts become U+FFFD. Tokens with the special flag are left out unless
  // `keep_special`. Throws Error for an id that has no token.
  std::string decode(std::span<const int32_t> ids, bool keep_special = true) const;

  int32_t vocab_size() const;  // greatest id + 1; the model may have more rows
  std::optional<int32_t> token_id(
      std::string_view bytes) const;               // of exactly these bytes, added tokens first
  std::string_view token_bytes(int32_t id) const;  // throws Error for an id without token
  bool has_token(int32_t id) const;
  bool is_special(int32_t id) const;  // false for ids without token
  bool is_added(int32_t id) const;

 private:
  struct Impl;
  friend class TokenizerBuilder;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace fathom
