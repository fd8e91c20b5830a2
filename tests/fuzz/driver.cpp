// Runs a fuzz target without libFuzzer: every seed file, then mutations of them, the same ones each
// time. It finds what shallow mutation finds, with any compiler; `make fuzz` searches with
// coverage.
//
//   json_fuzz ITERATIONS [SEED_FOLDER]
#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using fathom::Rng;

size_t index_below(Rng& rng, size_t n) { return static_cast<size_t>(rng.below(n)); }

// One small change: a byte, a bit, a piece removed, repeated, taken from another seed, or an
// awkward number.
void mutate(Rng& rng, std::string& text, const std::string& other) {
  constexpr const char* kAwkward[] = {
      "0", "-1", "18446744073709551616", "1e999", "\xFF", "\"", "[", "{", "\\u0000"};
  const size_t at = index_below(rng, text.size() + 1);
  switch (rng.below(7)) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(rng.below(256));
      break;
    case 1:
      if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << rng.below(8)));
      break;
    case 2:
      text.erase(at, index_below(rng, 16));
      break;
    case 3:
      text.insert(at, text.substr(index_below(rng, text.size() + 1), index_below(rng, 64)));
      break;
    case 4:
      text.insert(at, other.substr(index_below(rng, other.size() + 1), index_below(rng, 64)));
      break;
    case 5:
      text.insert(at, kAwkward[rng.below(std::size(kAwkward))]);
      break;
    default:
      text.resize(at);
      break;
  }
}

void try_input(const std::string& text) {
  // A copy of exactly this size, so that AddressSanitizer sees every byte read beyond it.
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  try {
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\ninput of {} bytes, as hexadecimal:\n", e.what(), bytes.size());
    for (const uint8_t b : bytes) fmt::print(stderr, "{:02x}", b);
    fmt::print(stderr, "\n");
    throw;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: {} ITERATIONS [SEED_FOLDER]\n", argv[0]);
    return 2;
  }
  std::vector<std::string> seeds = {""};
  if (argc > 2) {
    const std::string folder = argv[2];
    for (const std::string& name : fathom::list_folder(folder))
      seeds.push_back(fathom::read_file(folder + "/" + name));
  }
  for (const std::string& seed : seeds) try_input(seed);
  const auto iterations = static_cast<uint64_t>(std::atoll(argv[1]));
  for (uint64_t i = 0; i < iterations; ++i) {
    Rng rng(1, "fuzz", i);
    std::string text = seeds[index_below(rng, seeds.size())];
    for (uint64_t n = 1 + rng.below(4); n > 0; --n)
      mutate(rng, text, seeds[index_below(rng, seeds.size())]);
    try_input(text);
  }
  fmt::print("{} seeds, {} mutations\n", seeds.size(), iterations);
  return 0;
}
