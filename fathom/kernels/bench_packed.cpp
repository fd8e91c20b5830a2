#include "fathom/kernels/bench_packed.h"

#include <bit>

#include "fathom/base/error.h"

namespace fathom {
namespace {

uint16_t bf16_of(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace

PackedWeights::PackedWeights(PackedType type, const float* w, int64_t ld, int64_t n, int64_t k,
                             ThreadPool& pool)
    : memory_(std::make_unique<HugeBuffer>(packed_size_bytes(type, n, k))) {
  FM_CHECK(type != PackedType::kE4M3, "scales of e4m3 are not made here");
  PackParams p{.type = type, .n = n, .k = k, .src = w, .ld = ld, .dst = memory_->as<char>()};
  std::vector<uint16_t> half;
  std::vector<uint8_t> codes;
  if (type == PackedType::kBF16) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t q = 0; q < k; ++q) half.push_back(bf16_of(w[i * ld + q]));
    p.src = half.data();
    p.ld = k;
  } else if (is_quantized(type)) {
    codes.resize(static_cast<size_t>(n * quant_row_bytes(type, k)));
    half.resize(static_cast<size_t>(n * ((k + kQuantGroup - 1) / kQuantGroup)));
    quantize_rows({.type = type,
                   .w = w,
                   .ld = ld,
                   .n = n,
                   .k = k,
                   .codes = codes.data(),
                   .scales = half.data()},
                  pool);
    p.src = codes.data();
    p.ld = quant_row_bytes(type, k);
    p.scales = half.data();
  }
  packed_ = pack_nt(p, pool);
}

}  // namespace fathom
