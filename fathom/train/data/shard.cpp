#include "fathom/train/data/shard.h"

#include <fmt/core.h>

#include <array>
#include <cstring>
#include <limits>

#include "fathom/base/checksum.h"
#include "fathom/base/error.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they are");

constexpr char kMagic[8] = {'f', 'm', 's', 'h', 'a', 'r', 'd', '1'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kFlagNarrow = 1, kFlagLossMask = 2;
constexpr uint64_t kNarrowVocab = 65536;

struct Header {
  char magic[8];
  uint32_t version, flags;
  uint64_t vocab_size, num_tokens, num_documents, tokenizer_id, checksum, zero;
};
static_assert(sizeof(Header) == 64);

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

struct Layout {
  uint64_t tokens, offsets, mask, end;  // byte positions
};

// Throws Error when the counts cannot be those of a file this long, before any of them is used in
// arithmetic that wraps.
Layout layout_of(const Header& h, uint64_t file_bytes, const std::string& path) {
  const auto bad = [&](const std::string& what) {
    throw Error(Code::kDataLoss, fmt::format("{}: {}", path, what),
                "the shard is damaged or incomplete; pack it again");
  };
  if (h.num_tokens > file_bytes || h.num_documents > file_bytes) {
    bad(fmt::format("header counts {} tokens in {} documents, the file has {} bytes", h.num_tokens,
                    h.num_documents, file_bytes));
  }
  Layout layout{};
  layout.tokens = sizeof(Header);
  layout.offsets = layout.tokens + padded(h.num_tokens * ((h.flags & kFlagNarrow) != 0 ? 2 : 4));
  layout.mask = layout.offsets + (h.num_documents + 1) * 8;
  layout.end = layout.mask + ((h.flags & kFlagLossMask) != 0 ? padded((h.num_tokens + 7) / 8) : 0);
  if (layout.end != file_bytes) {
    bad(fmt::format("expected {} bytes by its header, the file has {}", layout.end, file_bytes));
  }
  return layout;
}

}  // namespace

uint64_t shard_checksum(std::span<const std::byte> file) {
  FM_CHECK(file.size() >= sizeof(Header) && file.size() % 8 == 0, "{} bytes", file.size());
  Header header{};
  std::memcpy(&header, file.data(), sizeof(header));
  header.checksum = 0;
  Checksum sum;  // opening a shard costs about one read of it
  sum.add(&header, sizeof(header));
  sum.add(file.data() + sizeof(header), file.size() - sizeof(header));
  return sum.value();
}

ShardWriter::ShardWriter(ShardInfo info) : info_(info) {
  FM_CHECK(info.vocab_size >= 1 && info.vocab_size <= uint64_t{1} << 31, "vocab_size is {}",
           info.vocab_size);
}

void ShardWriter::add(std::span<const int32_t> tokens, std::span<const uint8_t> loss) {
  FM_CHECK(!tokens.empty(), "a document without tokens");
  FM_CHECK(loss.size() == (info_.has_loss_mask ? tokens.size() : 0), "{} tokens, {} loss values",
           tokens.size(), loss.size());
  for (const int32_t token : tokens) {
    if (token < 0 || static_cast<uint64_t>(token) >= info_.vocab_size) {
      throw Error(Code::kInvalidArgument,
                  fmt::format("token {} is outside the vocabulary of {}", token, info_.vocab_size),
                  "pack with the tokenizer of the model");
    }
  }
  if (info_.vocab_size <= kNarrowVocab) {
    for (const int32_t token : tokens) narrow_.push_back(static_cast<uint16_t>(token));
  } else {
    for (const int32_t token : tokens) wide_.push_back(static_cast<uint32_t>(token));
  }
  if (info_.has_loss_mask) {
    mask_bits_.resize((num_tokens() + tokens.size() + 7) / 8);
    for (size_t i = 0; i < loss.size(); ++i) {
      const uint64_t at = num_tokens() + i;
      if (loss[i] != 0)
        mask_bits_[at / 8] = static_cast<uint8_t>(mask_bits_[at / 8] | 1u << at % 8);
    }
  }
  offsets_.push_back(num_tokens() + tokens.size());
}

void ShardWriter::write(const std::string& path) const {
  const bool narrow = info_.vocab_size <= kNarrowVocab;
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.flags = (narrow ? kFlagNarrow : 0) | (info_.has_loss_mask ? kFlagLossMask : 0);
  header.vocab_size = info_.vocab_size;
  header.num_tokens = num_tokens();
  header.num_documents = num_documents();
  header.tokenizer_id = info_.tokenizer_id;

  struct Part {
    const void* data;
    uint64_t size_bytes;
  };
  const std::array<Part, 3> parts = {
      {{narrow ? static_cast<const void*>(narrow_.data()) : wide_.data(),
        num_tokens() * (narrow ? 2 : 4)},
       {offsets_.data(), offsets_.size() * 8},
       {mask_bits_.data(), mask_bits_.size()}}};
  // The last bytes of a part with its padding, as one word.
  const auto tail = [](const Part& part) {
    uint64_t word = 0;
    const uint64_t whole = part.size_bytes / 8 * 8;
    if (part.size_bytes > whole) {
      std::memcpy(&word, static_cast<const char*>(part.data) + whole, part.size_bytes - whole);
    }
    return word;
  };
  Checksum sum;
  sum.add(&header, sizeof(header));
  for (const Part& part : parts) {
    sum.add(part.data, part.size_bytes / 8 * 8);
    const uint64_t word = tail(part);
    if (part.size_bytes % 8 != 0) sum.add(&word, 8);
  }
  header.checksum = sum.value();

  AtomicWriter file(path);
  file.write(&header, sizeof(header));
  for (const Part& part : parts) {
    file.write(part.data, part.size_bytes / 8 * 8);
    const uint64_t word = tail(part);
    if (part.size_bytes % 8 != 0) file.write(&word, 8);
  }
  file.commit();
}

Shard::Shard(const std::string& path) : file_(path) {
  const auto bad = [&](const std::string& what, const char* hint) {
    throw Error(Code::kDataLoss, fmt::format("{}: {}", path, what), hint);
  };
  constexpr const char* kPackAgain = "the shard is damaged or incomplete; pack it again";
  const std::span<const std::byte> bytes = file_.bytes();
  Header header{};
  if (bytes.size() < sizeof(header)) {
    bad(fmt::format("expected a header of {} bytes, the file has {}", sizeof(header), bytes.size()),
        kPackAgain);
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    bad("expected a token shard (magic 'fmshard1'), found something else",
        "pass files that the packer wrote");
  }
  if (header.version != kVersion) {
    bad(fmt::format("expected shard version {}, found {}", kVersion, header.version),
        "pack it again with this build");
  }
  if ((header.flags & ~(kFlagNarrow | kFlagLossMask)) != 0 || header.zero != 0) {
    bad(fmt::format("unknown header flags {:#x}", header.flags), kPackAgain);
  }
  const bool narrow = (header.flags & kFlagNarrow) != 0;
  if (header.vocab_size == 0 || header.vocab_size > uint64_t{1} << 31 ||
      narrow != (header.vocab_size <= kNarrowVocab)) {
    bad(fmt::format("vocab_size {} does not fit its token width", header.vocab_size), kPackAgain);
  }
  const Layout layout = layout_of(header, bytes.size(), path);
  if (shard_checksum(bytes) != header.checksum) bad("the checksum does not match", kPackAgain);

  info_ = {header.vocab_size, header.tokenizer_id, (header.flags & kFlagLossMask) != 0};
  num_tokens_ = header.num_tokens;
  num_documents_ = header.num_documents;
  // The map is page-aligned and every part starts at a multiple of 8.
  const std::byte* base = bytes.data();
  if (narrow) {
    narrow_ = reinterpret_cast<const uint16_t*>(base + layout.tokens);
  } else {
    wide_ = reinterpret_cast<const uint32_t*>(base + layout.tokens);
  }
  offsets_ = reinterpret_cast<const uint64_t*>(base + layout.offsets);
  if (info_.has_loss_mask) mask_ = reinterpret_cast<const uint8_t*>(base + layout.mask);

  if (offsets_[0] != 0 || offsets_[num_documents_] != num_tokens_) {
    bad(fmt::format("document offsets run from {} to {}, expected 0 to {}", offsets_[0],
                    offsets_[num_documents_], num_tokens_),
        kPackAgain);
  }
  for (uint64_t i = 0; i < num_documents_; ++i) {
    if (offsets_[i + 1] <= offsets_[i]) {
      bad(fmt::format("document offsets are not ascending at document {}: {} then {}", i,
                      offsets_[i], offsets_[i + 1]),
          kPackAgain);
    }
  }
  const auto token_at = [&](uint64_t i) { return narrow ? uint64_t{narrow_[i]} : wide_[i]; };
  for (uint64_t i = 0; i < num_tokens_; ++i) {
    if (token_at(i) >= header.vocab_size) {
      bad(fmt::format("token {} at position {} is outside the vocabulary of {}", token_at(i), i,
                      header.vocab_size),
          kPackAgain);
    }
  }
}

void Shard::copy_tokens(uint64_t begin, uint64_t end, int32_t* out) const {
  FM_CHECK(begin <= end && end <= num_tokens_, "begin {} end {} of {}", begin, end, num_tokens_);
  for (uint64_t i = begin; i < end; ++i) *out++ = token(i);
}

}  // namespace fathom
