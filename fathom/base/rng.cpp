#include "fathom/base/rng.h"

#include <cmath>
#include <numbers>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio, the step of SplitMix64

uint64_t finalize(uint64_t x) {  // SplitMix64's output function (Steele, Lea, Flood 2014)
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t hash_mix(uint64_t key, uint64_t counter) {
  return finalize(finalize(key + kGolden * (counter + 1)) ^ (key * kGolden));
}

uint64_t hash_bytes(std::string_view bytes, uint64_t seed) {
  uint64_t h = hash_mix(seed, bytes.size());
  for (const char c : bytes) h = hash_mix(h, static_cast<unsigned char>(c));
  return h;
}

Rng::Rng(uint64_t seed, std::string_view purpose, uint64_t index)
    : key_(hash_mix(hash_bytes(purpose, seed), index)) {}

uint64_t Rng::next() { return hash_mix(key_, counter_++); }

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

double Rng::normal() {
  const double u = 1.0 - uniform();  // (0, 1]
  const double v = uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t Rng::below(uint64_t n) {
  FM_CHECK(n >= 1, "n is {}", n);
  // largest value that keeps the classes equal
  const uint64_t limit = ~uint64_t{0} - (~uint64_t{0} % n + 1) % n;
  uint64_t x = next();
  while (x > limit) x = next();
  return x % n;
}

int64_t Rng::range(int64_t low, int64_t high) {
  FM_CHECK(low <= high, "low {} high {}", low, high);
  return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
}

}  // namespace fathom
