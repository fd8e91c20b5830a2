// Any bytes are a token shard or an Error; of a shard every document, token and mask bit can be
// read. The input is tried as it is, and with the checksum that it should have.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/train/data/shard.h"
#include "tests/fuzz/input_file.h"

namespace {

constexpr size_t kHeader = 64, kChecksumAt = 48;

void try_file(std::span<const std::byte> bytes) {
  const fathom::InputFile file(bytes.data(), bytes.size());
  try {
    const fathom::Shard shard(file.path());
    std::vector<int32_t> tokens(shard.num_tokens());
    for (uint64_t i = 0; i < shard.num_documents(); ++i) {
      const uint64_t begin = shard.document_begin(i), end = shard.document_begin(i + 1);
      shard.copy_tokens(begin, end, tokens.data() + begin);
    }
    for (uint64_t i = 0; i < shard.num_tokens(); ++i) {
      const auto token = static_cast<uint64_t>(tokens[i]);
      FM_CHECK(token < shard.info().vocab_size, "token {}, loss {}", token, shard.loss(i));
    }
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  try_file(input);
  if (size < kHeader || size % 8 != 0) return 0;
  std::vector<std::byte> bytes(input.begin(), input.end());
  const uint64_t sum = fathom::shard_checksum(bytes);
  std::memcpy(bytes.data() + kChecksumAt, &sum, sizeof sum);
  try_file(bytes);
  return 0;
}
