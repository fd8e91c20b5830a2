#include "fathom/infer/page_file.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/checksum.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/sha256.h"

namespace fathom {
namespace {

constexpr char kMagic[8] = {'f', 'm', 'p', 'a', 'g', 'e', '0', '1'};
constexpr size_t kKeyBytes = 64;

struct Header {
  char magic[8];
  uint64_t checksum;  // of the file with this field zero
  uint64_t num_tokens, data_bytes;
  char owner[kKeyBytes], parent[kKeyBytes], key[kKeyBytes];
};
static_assert(sizeof(Header) == 224);

uint64_t total_bytes(const PageParts& parts) {
  uint64_t sum = 0;
  for (const auto& part : parts) sum += part.size();
  return sum;
}

Header header_of(const PageId& id, const PageParts& parts) {
  FM_CHECK(id.tokens.size() % 2 == 0, "{} tokens", id.tokens.size());
  Header h{};
  std::copy_n(kMagic, sizeof(kMagic), h.magic);
  h.num_tokens = id.tokens.size();
  h.data_bytes = total_bytes(parts);
  const auto put = [](const PageKey& key, char* to) {
    FM_CHECK(key.size() == kKeyBytes, "a key of {} digits", key.size());
    std::copy_n(key.data(), kKeyBytes, to);
  };
  put(id.owner, h.owner);
  put(id.parent, h.parent);
  put(id.key, h.key);
  return h;
}

uint64_t checksum_of(const Header& h, const PageId& id, const PageParts& parts) {
  Checksum sum;
  sum.add(&h, sizeof(h));
  sum.add(id.tokens.data(), id.tokens.size_bytes());
  for (const auto& part : parts) sum.add(part.data(), part.size());
  return sum.value();
}

}  // namespace

PageKey page_key(const PageKey& parent, std::span<const int32_t> tokens) {
  std::string text = parent;
  text.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  return sha256_hex(text);
}

void write_page_file(const std::string& path, const PageId& id, const PageParts& parts) {
  Header h = header_of(id, parts);
  h.checksum = checksum_of(h, id, parts);
  AtomicWriter file(path, Durability::kUnsynced);
  file.write(&h, sizeof(h));
  file.write(id.tokens.data(), id.tokens.size_bytes());
  for (const auto& part : parts) file.write(part.data(), part.size());
  file.commit();
}

void read_page_bytes(std::span<const std::byte> file, const std::string& path, const PageId& id,
                     const PageParts& parts) {
  const auto bad = [&](const std::string& what) {
    throw Error(Code::kDataLoss, fmt::format("{}: {}", path, what), "the file may be deleted");
  };
  if (file.size() < sizeof(Header) || std::memcmp(file.data(), kMagic, sizeof(kMagic)) != 0)
    bad("expected a page of a prefix cache, found another file");
  Header expected = header_of(id, parts), h;
  std::memcpy(&h, file.data(), sizeof(h));
  const uint64_t size = sizeof(h) + id.tokens.size_bytes() + expected.data_bytes;
  if (file.size() != size) bad(fmt::format("expected {} bytes, found {}", size, file.size()));
  expected.checksum = h.checksum;
  if (std::memcmp(&h, &expected, sizeof(h)) != 0 ||
      std::memcmp(file.data() + sizeof(h), id.tokens.data(), id.tokens.size_bytes()) != 0)
    bad("expected the text and model of its name, found others");
  const std::byte* data = file.data() + sizeof(h) + id.tokens.size_bytes();
  for (const auto& part : parts) {
    std::memcpy(part.data(), data, part.size());
    data += part.size();
  }
  expected.checksum = 0;
  if (checksum_of(expected, id, parts) != h.checksum) bad("the checksum does not match");
}

}  // namespace fathom
