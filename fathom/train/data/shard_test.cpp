#include "fathom/train/data/shard.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

// Removed again when the tests end.
struct Folders {
  ~Folders() {
    for (const std::string& path : paths) std::filesystem::remove_all(path);
  }
  std::vector<std::string> paths;
};

std::string temporary_file() {
  char path[] = "/tmp/fathom_shard_XXXXXX";
  REQUIRE(mkdtemp(path) != nullptr);
  static Folders folders;
  folders.paths.emplace_back(path);
  return std::string(path) + "/a.shard";
}

// Documents of 1 .. 40 tokens with or without a mask.
void write_sample(const std::string& path, uint64_t vocab, bool mask, int documents = 20) {
  ShardWriter writer({.vocab_size = vocab, .tokenizer_id = 77, .has_loss_mask = mask});
  Rng rng(1, "shard");
  for (int i = 0; i < documents; ++i) {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> loss;
    for (int64_t n = rng.range(1, 40); n > 0; --n) {
      tokens.push_back(static_cast<int32_t>(rng.below(vocab)));
      if (mask) loss.push_back(static_cast<uint8_t>(rng.below(2)));
    }
    writer.add(tokens, loss);
  }
  writer.write(path);
}

template <class T>
void put(std::string& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

// Without the fsync of write_file_atomic: the fuzz loops write thousands of files.
void write_plain(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

// Writes `bytes` with a checksum that fits, so that only the defect under test is left.
void write_signed(const std::string& path, std::string bytes) {
  put(bytes, 48, shard_checksum(std::as_bytes(std::span(bytes))));
  write_plain(path, bytes);
}

}  // namespace

TEST_CASE("a shard gives back its documents, tokens and mask, narrow and wide") {
  for (const uint64_t vocab :
       {uint64_t{1}, uint64_t{1024}, uint64_t{65536}, uint64_t{65537}, uint64_t{129280}}) {
    for (const bool mask : {false, true}) {
      const std::string path = temporary_file();
      write_sample(path, vocab, mask);
      const Shard shard(path);
      CHECK(shard.info().vocab_size == vocab);
      CHECK(shard.info().tokenizer_id == 77);
      CHECK(shard.info().has_loss_mask == mask);
      REQUIRE(shard.num_documents() == 20);
      Rng rng(1, "shard");
      uint64_t at = 0;
      for (uint64_t i = 0; i < 20; ++i) {
        CHECK(shard.document_begin(i) == at);
        for (int64_t n = rng.range(1, 40); n > 0; --n, ++at) {
          CHECK(shard.token(at) == static_cast<int32_t>(rng.below(vocab)));
          CHECK(shard.loss(at) == (!mask || rng.below(2) != 0));
        }
      }
      CHECK(at == shard.num_tokens());
      CHECK(shard.document_begin(20) == at);
    }
  }
}

TEST_CASE("a shard without documents opens") {
  const std::string path = temporary_file();
  ShardWriter({.vocab_size = 10}).write(path);
  CHECK(Shard(path).num_documents() == 0);
}

TEST_CASE("tokens outside the vocabulary are refused when written") {
  ShardWriter writer({.vocab_size = 10});
  const std::vector<int32_t> above = {3, 10}, below = {-1};
  CHECK_THROWS_AS(writer.add(above), Error);
  CHECK_THROWS_AS(writer.add(below), Error);
  CHECK_THROWS_AS(writer.add({}), InternalError);
}

TEST_CASE("each defect of a shard is an error that names it") {
  const std::string path = temporary_file();
  write_sample(path, 1000, true);
  const std::string good = read_file(path);
  const auto message = [&](const std::string& bytes, bool sign = true) -> std::string {
    if (sign) {
      write_signed(path, bytes);
    } else {
      write_plain(path, bytes);
    }
    try {
      const Shard shard(path);
    } catch (const Error& error) {
      CHECK(error.code() == Code::kDataLoss);
      CHECK_FALSE(error.hint().empty());
      return error.message();
    }
    return "accepted";
  };
  const uint64_t tokens = Shard(path).num_tokens();
  const size_t offsets_at = 64 + (tokens * 2 + 7) / 8 * 8;
  CHECK(message(good) == "accepted");
  const auto expect = [&](const char* part, auto change) {
    std::string bytes = good;
    change(bytes);
    CHECK_MESSAGE(message(bytes).find(part) != std::string::npos, part);
  };
  expect("magic", [](std::string& b) { b[0] = 'x'; });
  expect("version", [](std::string& b) { put(b, 8, uint32_t{2}); });
  expect("flags", [](std::string& b) { put(b, 12, uint32_t{7}); });
  expect("vocab_size", [](std::string& b) { put(b, 16, uint64_t{70000}); });
  expect("vocab_size", [](std::string& b) { put(b, 16, uint64_t{0}); });
  expect("header counts", [](std::string& b) { put(b, 24, ~uint64_t{0}); });
  expect("header counts", [](std::string& b) { put(b, 32, ~uint64_t{0}); });
  expect("by its header", [&](std::string& b) { put(b, 24, tokens + 8); });
  expect("by its header", [](std::string& b) { b.resize(b.size() - 8); });
  expect("by its header", [](std::string& b) { b += std::string(8, '\0'); });
  expect("outside the vocabulary", [](std::string& b) { put(b, 64, uint16_t{1000}); });
  expect("offsets run", [&](std::string& b) { put(b, offsets_at, uint64_t{1}); });
  expect("offsets run", [&](std::string& b) { put(b, offsets_at + 160, tokens - 1); });
  expect("not ascending", [&](std::string& b) { put(b, offsets_at + 16, uint64_t{0}); });
  std::string flipped = good;
  flipped[70] = static_cast<char>(flipped[70] ^ 1);
  CHECK(message(flipped, false).find("checksum") != std::string::npos);
  CHECK(message("", false).find("header") != std::string::npos);
  CHECK(message(good.substr(0, 63), false).find("header") != std::string::npos);
}

TEST_CASE("any changed byte and any cut is noticed") {
  for (const bool mask : {false, true}) {
    const std::string path = temporary_file();
    write_sample(path, 70000, mask, 5);
    const std::string good = read_file(path);
    Rng rng(3, "fuzz");
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ static_cast<char>(rng.range(1, 255)));
      write_plain(path, bytes);
      CHECK_THROWS_AS(Shard{path}, Error);
    }
    for (size_t i = 0; i < good.size(); i += 3) {
      write_plain(path, good.substr(0, i));
      CHECK_THROWS_AS(Shard{path}, Error);
    }
  }
}

TEST_CASE("a damaged shard with a fitting checksum is refused or safe to read") {
  const std::string path = temporary_file();
  write_sample(path, 1000, true, 6);
  const std::string good = read_file(path);
  Rng rng(4, "fuzz");
  int accepted = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (int64_t n = rng.range(1, 3); n > 0; --n) {
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    }
    write_signed(path, bytes);
    try {
      const Shard shard(path);
      ++accepted;
      int64_t sum = 0;
      for (uint64_t i = 0; i < shard.num_tokens(); ++i) {
        CHECK(static_cast<uint64_t>(shard.token(i)) < shard.info().vocab_size);
        sum += shard.loss(i);
      }
      CHECK(sum >= 0);
    } catch (const Error& error) {
      CHECK(error.code() == Code::kDataLoss);
    }
  }
  CHECK(accepted > 0);
  CHECK(accepted < 2000);
}

}  // namespace fathom
