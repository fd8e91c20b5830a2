// One page of the key cache as a file: what it belongs to, its tokens, a checksum, then the page's
// memory (docs/formats.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fathom {

// 64 hexadecimal digits of SHA-256.
using PageKey = std::string;

// Which page a file holds. `key` = SHA-256(parent, tokens) stands for the whole text up to the
// page's end, and `owner`, the key of the empty text, for everything else that decides the bits.
struct PageId {
  PageKey owner, parent, key;
  std::span<const int32_t> tokens;
};

PageKey page_key(const PageKey& parent, std::span<const int32_t> tokens);

using PageParts = std::vector<std::span<std::byte>>;  // each a multiple of 8 bytes

// A complete file or none; throws Error. After a crash of the machine it may be damaged.
void write_page_file(const std::string& path, const PageId& id, const PageParts& parts);

// The file's bytes into `parts`. Throws Error (kDataLoss) that names the defect, with `parts`
// perhaps half written, unless the bytes are exactly what write_page_file made of `id`. `path` is
// for messages.
void read_page_bytes(std::span<const std::byte> file, const std::string& path, const PageId& id,
                     const PageParts& parts);

}  // namespace fathom
