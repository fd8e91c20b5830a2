// Token shards: packed documents in one memory-mapped file. Little-endian, all parts at offsets
// that are multiples of 8:
//
//   0   8 bytes  magic "fmshard1"
//   8   u32      version, 1
//   12  u32      flags: 1 = tokens are u16 (vocab_size <= 65536), else u32; 2 = a loss mask
//   follows; others are zero 16  u64      vocab_size; every token is smaller 24  u64 num_tokens 32
//   u64      num_documents 40  u64      tokenizer_id, chosen by the writer (a hash of the tokenizer
//   file); 0 when not known 48  u64      checksum of the file with this word zero (shard_checksum)
//   56  u64      zero
//   64           tokens, num_tokens of them, zero-padded to 8 bytes
//                document offsets, num_documents + 1 u64, in tokens: the first 0, strictly
//                ascending, the last num_tokens loss mask, one bit per token from the lowest bit of
//                the first byte, zero-padded to 8 bytes
//
// The file ends there. Opening checks all of this, so a reader trusts what it gets.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fathom/base/file.h"

namespace fathom {

struct ShardInfo {
  uint64_t vocab_size = 0;
  uint64_t tokenizer_id = 0;
  bool has_loss_mask = false;
};

// Collects documents in memory and writes them as one shard; the file is complete or absent.
class ShardWriter {
 public:
  explicit ShardWriter(ShardInfo info);

  // `loss` has one value per token when the shard has a loss mask and is empty otherwise. Throws
  // Error when a token is negative or not below vocab_size; empty documents are an InternalError.
  void add(std::span<const int32_t> tokens, std::span<const uint8_t> loss = {});
  uint64_t num_tokens() const { return offsets_.back(); }
  uint64_t num_documents() const { return offsets_.size() - 1; }
  void write(const std::string& path) const;  // throws Error

 private:
  ShardInfo info_;
  std::vector<uint16_t> narrow_;  // one of the two holds the tokens
  std::vector<uint32_t> wide_;
  std::vector<uint64_t> offsets_ = {0};
  std::vector<uint8_t> mask_bits_;
};

// A mapped shard; const access is thread-safe.
class Shard {
 public:
  explicit Shard(const std::string& path);  // throws Error (kDataLoss) for every defect of the file

  const ShardInfo& info() const { return info_; }
  const std::string& path() const { return file_.path(); }
  uint64_t num_tokens() const { return num_tokens_; }
  uint64_t num_documents() const { return num_documents_; }
  // Document i is [document_begin(i), document_begin(i + 1)); i <= num_documents().
  uint64_t document_begin(uint64_t i) const { return offsets_[i]; }
  int32_t token(uint64_t at) const {
    return static_cast<int32_t>(narrow_ != nullptr ? narrow_[at] : wide_[at]);
  }
  // Whether the token counts in the loss when it is a target; true without a mask.
  bool loss(uint64_t at) const { return mask_ == nullptr || (mask_[at / 8] >> (at % 8) & 1) != 0; }
  void copy_tokens(uint64_t begin, uint64_t end, int32_t* out) const;

 private:
  MappedFile file_;
  ShardInfo info_;
  uint64_t num_tokens_ = 0, num_documents_ = 0;
  const uint16_t* narrow_ = nullptr;
  const uint32_t* wide_ = nullptr;
  const uint64_t* offsets_ = nullptr;
  const uint8_t* mask_ = nullptr;
};

// Of a whole shard file, its checksum word taken as zero; the size must be a multiple of 8 and hold
// a header.
uint64_t shard_checksum(std::span<const std::byte> file);

}  // namespace fathom
