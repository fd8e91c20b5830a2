#include "fathom/text/unicode.h"

#include <map>
#include <string>

namespace fathom {
namespace {

constexpr size_t kNumCodePoints = 0x110000;

// White_Space of the Unicode character database (PropList).
constexpr UnicodeRange kWhiteSpace[] = {
    {0x09, 0x0D, kSpace},     {0x20, 0x20, kSpace},     {0x85, 0x85, kSpace},
    {0xA0, 0xA0, kSpace},     {0x1680, 0x1680, kSpace}, {0x2000, 0x200A, kSpace},
    {0x2028, 0x2029, kSpace}, {0x202F, 0x202F, kSpace}, {0x205F, 0x205F, kSpace},
    {0x3000, 0x3000, kSpace},
};

}  // namespace

CharTable::CharTable() {
  std::string flat(kNumCodePoints, '\0');
  const auto mark = [&](const UnicodeRange& r) {
    for (size_t c = r.first; c <= r.last; ++c) flat[c] = static_cast<char>(flat[c] | r.kind);
  };
  for (size_t i = 0; i < kNumUnicodeRanges; ++i) mark(kUnicodeRanges[i]);
  for (const UnicodeRange& r : kWhiteSpace) mark(r);
  flat['\r'] = flat['\n'] = kSpace | kNewline;

  std::map<std::string, uint16_t> seen;
  for (size_t begin = 0; begin < kNumCodePoints; begin += 256) {
    std::string block = flat.substr(begin, 256);
    const auto [it, added] = seen.try_emplace(block, static_cast<uint16_t>(seen.size()));
    if (added) cells_.insert(cells_.end(), block.begin(), block.end());
    block_of_.push_back(it->second);
  }
}

const CharTable& CharTable::get() {
  static const CharTable table;
  return table;
}

}  // namespace fathom
