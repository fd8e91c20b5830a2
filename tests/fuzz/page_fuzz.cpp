// Any bytes are the page of a prefix cache that was asked for, whole and with its checksum, or an
// Error. The input is tried as it is, and with the checksum that it should have.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "fathom/base/checksum.h"
#include "fathom/base/error.h"
#include "fathom/infer/page_file.h"

namespace {

constexpr size_t kChecksumAt = 8;

void try_file(std::vector<std::byte> bytes) {
  std::array<int32_t, 64> tokens;
  std::iota(tokens.begin(), tokens.end(), 0);
  const fathom::PageKey owner(64, 'a'), parent(64, 'b');
  const fathom::PageId id{owner, parent, fathom::page_key(parent, tokens), tokens};
  std::array<std::byte, 64> first, second;
  try {
    fathom::read_page_bytes(bytes, "input", id, {first, second});
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
    return;
  }
  const size_t data = bytes.size() - first.size() - second.size();
  FM_CHECK(std::equal(first.begin(), first.end(), bytes.begin() + static_cast<int64_t>(data)),
           "other rows than the file's, {} bytes", bytes.size());
  uint64_t sum = 0, zero = 0;
  std::memcpy(&sum, bytes.data() + kChecksumAt, 8);
  std::memcpy(bytes.data() + kChecksumAt, &zero, 8);
  fathom::Checksum whole;
  whole.add(bytes.data(), bytes.size());
  FM_CHECK(whole.value() == sum, "a wrong checksum passed, {} bytes", bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  std::vector<std::byte> bytes(input.begin(), input.end());
  try_file(bytes);
  if (size < kChecksumAt + 8 || size % 8 != 0) return 0;
  std::fill_n(bytes.begin() + kChecksumAt, 8, std::byte{0});
  fathom::Checksum whole;
  whole.add(bytes.data(), size);
  const uint64_t sum = whole.value();
  std::memcpy(bytes.data() + kChecksumAt, &sum, 8);
  try_file(bytes);
  return 0;
}
