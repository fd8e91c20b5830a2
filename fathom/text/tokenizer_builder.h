// Puts a Tokenizer together from the parts that the file readers found. Private to the tokenizer's
// sources.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/text/added_tokens.h"
#include "fathom/text/bpe.h"
#include "fathom/text/pre_tokenizer.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

// The greatest id that a file may name; keeps a bad file from asking for all memory.
inline constexpr int64_t kMaxTokenId = (1 << 24) - 1;

class TokenizerBuilder {
 public:
  // One merge of the model; rank is its place in the order.
  struct Merge {
    int32_t left, right, token;
    uint32_t rank;
  };
  enum class WholeWords : uint8_t { kMerge, kTakeAsToken };

  // `bytes` are what the token decodes to. Throws Error when the id is out of range or taken by
  // other bytes.
  void add_token(int64_t id, std::string bytes);
  void add_special(AddedToken token);  // any added token, special or not
  void set_merges(std::vector<Merge> merges) { merges_ = std::move(merges); }
  void set_pre_tokenizer(PreTokenizer p) { pre_tokenizer_ = std::move(p); }
  void set_whole_words(WholeWords w) { whole_words_ = w; }
  Tokenizer build();

 private:
  struct Token {
    std::string bytes;
    bool present = false;
  };
  std::vector<Token> tokens_;
  std::vector<AddedToken> added_;
  std::vector<Merge> merges_;
  PreTokenizer pre_tokenizer_{{}};
  WholeWords whole_words_ = WholeWords::kMerge;
};

// The published Python code also cuts text after 25,000 characters without a blank (a limit of its
// library), which can change the words at the cut; here no such cut is made.
Tokenizer load_tiktoken(const std::string& file);
// `ranks` is the text of the tiktoken file, `config` that of tokenizer_config.json (its
// added_tokens_decoder is read).
Tokenizer tiktoken_from_text(std::string_view ranks, std::string_view config,
                             const std::string& what);

// GPT-2's alphabet that writes bytes as printable characters.
char32_t byte_to_alphabet(unsigned char byte);
// The bytes of a token written in it; false when some character is not of the alphabet.
bool alphabet_to_bytes(std::string_view text, std::string& bytes);

}  // namespace fathom
