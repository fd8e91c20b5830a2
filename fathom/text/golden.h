// Compares this build with reference files of text: tokenizer cases (JSONL with text and ids).
// Failures are data.
#pragma once

#include <string>
#include <vector>

namespace fathom {

class Tokenizer;

struct GoldenFailure {
  size_t line;          // in the file, from 1
  std::string message;  // what was expected, what came
};

struct GoldenReport {
  size_t num_cases = 0;
  std::vector<GoldenFailure> failures;
};

// Every line: encode(text) with added tokens parsed equals ids, and decode(ids) equals text. Throws
// Error only when the file cannot be read.
GoldenReport check_tokenizer_golden(const std::string& file, const Tokenizer& tokenizer);

}  // namespace fathom
