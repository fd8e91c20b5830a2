// Random text for the tests of this room: characters of every class that a pre-tokenizer tells
// apart.
#pragma once

#include <string>

#include "fathom/base/rng.h"
#include "fathom/text/utf8.h"

namespace fathom {

inline char32_t random_char(Rng& rng) {
  static constexpr char32_t kPicks[] = {
      U' ',   U' ',   U' ',  U'\n',   U'\r',   U'\t',    U'a',   U'b',   U'Z',   U'\'',  U'0',
      U'7',   U'.',   U'!',  U'<',    U'{',    0x85,     0xA0,   0x3000, 0x2028, 0x180E, 0x200B,
      0x200D, 0xFEFF, 0x301, 0x0C4D,  0x4E00,  0x9FA5,   0x9FA6, 0x3042, 0x30FB, 0x30FF, 0x3100,
      0xB5,   0xE9,   0x130, 0x1F600, 0x1F3FD, 0xFF01,   0xFF5C, 0x2581, 0x660,  0xBD,   0x2160,
      0xAC00, 0x5D0,  0x627, 0x0E01,  0x20AC,  0x10FFFF, 0xE000, 0x378,  0,      0x7F};
  const uint64_t kind = rng.below(8);
  if (kind < 5) return kPicks[rng.below(std::size(kPicks))];
  if (kind == 5) return static_cast<char32_t>(rng.below(0x80));
  for (;;) {
    const auto code = static_cast<char32_t>(rng.below(kind == 6 ? 0x3000 : 0x110000));
    if (code < 0xD800 || code > 0xDFFF) return code;
  }
}

inline std::string random_text(Rng& rng, size_t most_chars) {
  std::string out;
  for (uint64_t n = rng.below(most_chars + 1); n > 0; --n) {
    const char32_t c = random_char(rng);
    const uint64_t repeat = rng.below(6) == 0 ? rng.below(6) : 1;
    for (uint64_t r = 0; r < repeat; ++r) append_utf8(c, out);
  }
  return out;
}

}  // namespace fathom
