// Character classes that pre-tokenizers ask for: L, M, N, P, S, white space, and the two line ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom {

// Bits; a character has at most one general category, and may be white space besides.
enum CharClass : uint8_t {
  kOther = 0,
  kLetter = 1,       // \p{L}
  kMark = 2,         // \p{M}
  kNumber = 4,       // \p{N}
  kPunctuation = 8,  // \p{P}
  kSymbol = 16,      // \p{S}
  kSpace = 32,       // Unicode White_Space
  kNewline = 64,     // \r or \n
};

struct UnicodeRange {
  uint32_t first, last;  // both included
  uint8_t kind;          // CharClass
};
extern const UnicodeRange kUnicodeRanges[];  // ascending
extern const size_t kNumUnicodeRanges;

// Two-level table over all code points. Immutable after construction, safe to share.
class CharTable {
 public:
  static const CharTable& get();
  uint8_t operator[](char32_t code) const {  // code <= 0x10FFFF
    return cells_[static_cast<size_t>(block_of_[code >> 8]) << 8 | (code & 0xFF)];
  }

 private:
  CharTable();
  std::vector<uint16_t> block_of_;
  std::vector<uint8_t> cells_;
};

}  // namespace fathom
