#include "fathom/text/added_tokens.h"

#include <algorithm>

#include "fathom/text/unicode.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

bool space_at(std::string_view text, size_t at, size_t& next) {
  next = at;
  return (CharTable::get()[utf8_next_unchecked(text, next)] & kSpace) != 0;
}

// The begin of the white space that ends at `end`, not before `floor`.
size_t space_begin(std::string_view text, size_t floor, size_t end) {
  size_t begin = end, at = floor;
  while (at < end) {
    size_t next;
    begin = space_at(text, at, next) ? std::min(begin, at) : end;
    at = next;
  }
  return begin;
}

size_t space_end(std::string_view text, size_t begin) {
  size_t next;
  while (begin < text.size() && space_at(text, begin, next)) begin = next;
  return begin;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& t : tokens) {
    if (t.content.empty()) continue;
    Pass& pass = t.normalized ? normalized_ : raw_;
    pass.entries.push_back({t.content, t.id, t.lstrip, t.rstrip});
    pass.starts[static_cast<unsigned char>(t.content[0])] = true;
  }
  for (Pass* pass : {&raw_, &normalized_})
    std::stable_sort(pass->entries.begin(), pass->entries.end(),
                     [](const Entry& a, const Entry& b) { return a.content < b.content; });
}

// Narrows the range of entries that share the text's first bytes, one byte at a time.
const AddedTokenMatcher::Entry* AddedTokenMatcher::Pass::longest_at(std::string_view text) const {
  auto low = entries.begin(), high = entries.end();
  const Entry* best = nullptr;
  for (size_t depth = 0; depth < text.size() && low != high; ++depth) {
    const auto byte = [depth](const Entry& e) {
      return static_cast<int>(static_cast<unsigned char>(e.content[depth]));
    };
    const int want = static_cast<unsigned char>(text[depth]);
    // An entry of just `depth` bytes sorts first; it cannot be narrowed further.
    while (low != high && low->content.size() == depth) ++low;
    low = std::partition_point(low, high, [&](const Entry& e) { return byte(e) < want; });
    high = std::partition_point(low, high, [&](const Entry& e) { return byte(e) == want; });
    if (low != high && low->content.size() == depth + 1) best = &*low;
  }
  return best;
}

void AddedTokenMatcher::Pass::split(std::string_view text, std::vector<TextPart>& out) const {
  size_t done = 0, at = 0;
  while (at < text.size()) {
    const Entry* found =
        starts[static_cast<unsigned char>(text[at])] ? longest_at(text.substr(at)) : nullptr;
    if (!found) {
      ++at;
      continue;
    }
    const size_t begin = found->lstrip ? space_begin(text, done, at) : at;
    size_t end = at + found->content.size();
    if (found->rstrip) end = space_end(text, end);
    if (begin > done) out.push_back({-1, text.substr(done, begin - done)});
    out.push_back({found->id, text.substr(begin, end - begin)});
    done = at = end;
  }
  if (done < text.size()) out.push_back({-1, text.substr(done)});
}

std::vector<TextPart> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<TextPart> first, out;
  raw_.split(text, first);
  if (normalized_.entries.empty()) return first;
  for (const TextPart& part : first) {
    if (part.id >= 0)
      out.push_back(part);
    else
      normalized_.split(part.text, out);
  }
  return out;
}

}  // namespace fathom
