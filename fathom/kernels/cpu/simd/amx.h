// The matrix unit of x86 processors (AMX): whether it may be used, and its products of bytes (those
// of bf16 are in split_products.cpp and attention_bf16.cpp). Other architectures only see that
// there is none.
#pragma once

#include <cstdint>

namespace fathom::simd {

// The processor has it and the system lets this process use it (asked for once).
bool amx_int8();
bool amx_bf16();

#if defined(__x86_64__)
struct alignas(64) AmxShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// While it lives, the calling thread's tiles have these shapes, or are all 16 rows of 64 bytes.
class AmxTiles {
 public:
  AmxTiles() {
    static constexpr AmxShapes kShapes{};
    asm volatile("ldtilecfg %0" : : "m"(kShapes));
  }
  explicit AmxTiles(const AmxShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  // signed a times unsigned b, 16 x 64 sums that stay in the tiles: a has 16 rows of k bytes, k a
  // multiple of 64; b four panels [k / 4][16][4], one behind the other. Calls between() k / 32
  // times on the way. With shapes of fewer rows for tiles 0 to 4, a has as many.
  template <class F>
  void multiply_16x64(const int8_t* a, const uint8_t* b, int64_t k, F between) const {
    const int64_t line = 64;
    asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" : :);
    for (int64_t at = 0; at < k; at += 64) {
      const uint8_t* p = b + at * 16;
      asm volatile(
          "tileloadd (%0,%1,1), %%tmm4\n\t"
          "tileloadd (%2,%4,1), %%tmm5\n\t"
          "tdpbsud %%tmm5, %%tmm4, %%tmm0\n\t"
          "tileloadd (%3,%4,1), %%tmm6\n\t"
          "tdpbsud %%tmm6, %%tmm4, %%tmm1"
          :
          : "r"(a + at), "r"(k), "r"(p), "r"(p + 16 * k), "r"(line)
          : "memory");
      between();
      asm volatile(
          "tileloadd (%0,%2,1), %%tmm5\n\t"
          "tdpbsud %%tmm5, %%tmm4, %%tmm2\n\t"
          "tileloadd (%1,%2,1), %%tmm6\n\t"
          "tdpbsud %%tmm6, %%tmm4, %%tmm3"
          :
          : "r"(p + 32 * k), "r"(p + 48 * k), "r"(line)
          : "memory");
      between();
    }
  }
  // signed a times signed b, 16 x 64 sums that stay in the tiles: a has 16 rows of 64 * blocks
  // bytes, lda apart; b four panels [16 * blocks][16][4], ldb bytes apart.
  void multiply_16x64(const int8_t* a, int64_t lda, const int8_t* b, int64_t ldb,
                      int64_t blocks) const {
    const int64_t line = 64;
    asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" : :);
    for (; blocks > 0; --blocks, a += 64, b += 1024)
      asm volatile(
          "tileloadd (%0,%6,1), %%tmm4\n\t"
          "tileloadd (%1,%5,1), %%tmm5\n\t"
          "tdpbssd %%tmm5, %%tmm4, %%tmm0\n\t"
          "tileloadd (%2,%5,1), %%tmm6\n\t"
          "tdpbssd %%tmm6, %%tmm4, %%tmm1\n\t"
          "tileloadd (%3,%5,1), %%tmm5\n\t"
          "tdpbssd %%tmm5, %%tmm4, %%tmm2\n\t"
          "tileloadd (%4,%5,1), %%tmm6\n\t"
          "tdpbssd %%tmm6, %%tmm4, %%tmm3"
          :
          : "r"(a), "r"(b), "r"(b + ldb), "r"(b + 2 * ldb), "r"(b + 3 * ldb), "r"(line), "r"(lda)
          : "memory");
  }
  // signed a times signed b, 64 x 16 sums that stay in the tiles: a has 64 rows of 128 bytes, lda
  // apart; b is a panel [32][16][4].
  void multiply_64x16(const int8_t* a, int64_t lda, const void* b) const {
    const int64_t line = 64;
    asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" : :);
    for (int64_t at = 0; at < 128; at += 64) {
      const int8_t* p = a + at;
      asm volatile(
          "tileloadd (%0,%5,1), %%tmm4\n\t"
          "tileloadd (%1,%6,1), %%tmm5\n\t"
          "tdpbssd %%tmm4, %%tmm5, %%tmm0\n\t"
          "tileloadd (%2,%6,1), %%tmm6\n\t"
          "tdpbssd %%tmm4, %%tmm6, %%tmm1\n\t"
          "tileloadd (%3,%6,1), %%tmm5\n\t"
          "tdpbssd %%tmm4, %%tmm5, %%tmm2\n\t"
          "tileloadd (%4,%6,1), %%tmm6\n\t"
          "tdpbssd %%tmm4, %%tmm6, %%tmm3"
          :
          : "r"(static_cast<const char*>(b) + at * 16), "r"(p), "r"(p + 16 * lda),
            "r"(p + 32 * lda), "r"(p + 48 * lda), "r"(line), "r"(lda)
          : "memory");
    }
  }
  // out[64][16] = those sums
  void store_64x16(int32_t* out) const { store(out, 256, 64); }
  // out[16][64] = sums of 16 x 64
  void store_16x64(int32_t* out) const { store(out, 16, 256); }

 private:
  // Tiles `apart` numbers from each other, rows of them `line` bytes.
  static void store(int32_t* out, int64_t apart, int64_t line) {
    asm volatile(
        "tilestored %%tmm0, (%0,%4,1)\n\t"
        "tilestored %%tmm1, (%1,%4,1)\n\t"
        "tilestored %%tmm2, (%2,%4,1)\n\t"
        "tilestored %%tmm3, (%3,%4,1)"
        :
        : "r"(out), "r"(out + apart), "r"(out + 2 * apart), "r"(out + 3 * apart), "r"(line)
        : "memory");
  }
};
#endif

}  // namespace fathom::simd
