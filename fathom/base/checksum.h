// A quick checksum of 8-byte words, for files that may be damaged or cut; no protection against
// forgery.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace fathom {

class Checksum {
 public:
  // size_bytes is a multiple of 8.
  void add(const void* data, uint64_t size_bytes) {
    const char* p = static_cast<const char*>(data);
    for (uint64_t i = 0; i < size_bytes; i += 8) {
      uint64_t word;
      std::memcpy(&word, p + i, 8);
      // Invertible in the word and in the state: any single changed word changes the sum.
      state_ = (std::rotl(state_, 23) ^ word) * 0x9E3779B97F4A7C15ull;
    }
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0;
};

}  // namespace fathom
