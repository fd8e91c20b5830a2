// Compares this build with reference files of text: tokenizer cases (JSONL with text and ids).
// Failures are data.
#pragma once

#include <string>
#include <vector>

namespace fathom {

struct ChatTemplate;
class Tokenizer;

struct GoldenFailure {
  size_t line;          // in the file, from 1
  std::string message;  // what was expected, what came
};

struct TextGoldenReport {
  size_t num_cases = 0;
  std::vector<GoldenFailure> failures;
};

// Every line: encode(text) with added tokens parsed equals ids, and decode(ids) equals text. Throws
// Error only when the file cannot be read.
TextGoldenReport check_tokenizer_golden(const std::string& file, const Tokenizer& tokenizer);

// Lines with `messages` (and mode, context, drop_thinking, add_bos): the V3.2 rendering equals
// `expected`, or `error` is true and rendering fails. In `expected` the preambles may stand as
// @@TOOLS_PREAMBLE@@ and
// @@RESPONSE_FORMAT_PREAMBLE@@; they become those of `words`. Lines with `text`: the strict parser
// gives `expected`, or fails where `error` is true.
TextGoldenReport check_encoding_golden(const std::string& file, const ChatTemplate& words);

}  // namespace fathom
