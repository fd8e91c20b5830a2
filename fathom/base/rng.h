// Counter-based random streams: a stream is named by seed, purpose and index, so that any part of a
// run can be replayed alone.
#pragma once

#include <cstdint>
#include <string_view>

namespace fathom {

// Value type; copying forks the stream at its position. Not thread-safe, make one per task instead.
class Rng {
 public:
  Rng(uint64_t seed, std::string_view purpose, uint64_t index = 0);

  uint64_t next();                           // 64 random bits
  double uniform();                          // [0, 1), 53 bits
  double normal();                           // mean 0, variance 1 (Box-Muller, two draws each)
  uint64_t below(uint64_t n);                // 0 .. n-1 without bias; n >= 1
  int64_t range(int64_t low, int64_t high);  // low .. high, both included

  // The stream is a function of (key, counter); both can be stored and set again.
  uint64_t key() const { return key_; }
  uint64_t counter() const { return counter_; }
  void seek(uint64_t counter) { counter_ = counter; }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

// A good 64-bit mix of two words; the block function of Rng.
uint64_t hash_mix(uint64_t key, uint64_t counter);
uint64_t hash_bytes(std::string_view bytes, uint64_t seed = 0);

}  // namespace fathom
