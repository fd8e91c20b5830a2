// The files of `fathom golden` that concern text: tokenizer cases, chat encodings, completions.
#pragma once

#include <string>

#include "fathom/text/golden.h"

namespace fathom {

struct GoldenTextOptions {
  std::string tokenizer;        // tokenizer.json or its folder, for lines with `ids`
  std::string encoding_source;  // encoding_dsv32.py; empty: fathom's own wording
};

// By the first line: `ids` makes a file of tokenizer cases, `mode` one of encodings or completions.
// Throws Error for other files, and for tokenizer cases without a tokenizer.
TextGoldenReport check_golden_text(const std::string& file, const GoldenTextOptions& options);

}  // namespace fathom
