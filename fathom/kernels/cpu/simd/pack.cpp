// Weight panels: sizes, packing from both storage orders (see gemm.h).
#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/cpu/simd/int_tiles.h"
#include "fathom/kernels/cpu/simd/split_products.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

using simd::quant_group_bytes;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
size_t round_up_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t element_bytes(PackedType type) {
  return type == PackedType::kF32 ? 4 : type == PackedType::kBF16 ? 2 : 1;
}

size_t panel_bytes(PackedType type, int64_t n, int64_t k) {
  const int64_t panels = ceil_div(n, kPanelCols);
  if (type == PackedType::kSplit)
    return static_cast<size_t>(panels * simd::split_stride(k)) * sizeof(uint16_t);
  if (is_quantized(type))
    return static_cast<size_t>(panels * ceil_div(k, kQuantGroup) * quant_group_bytes(type));
  return round_up_64(static_cast<size_t>(panels * kPanelCols * k * element_bytes(type)));
}

size_t scale_bytes(PackedType type, int64_t n, int64_t k) {
  const int64_t panels = ceil_div(n, kPanelCols);
  if (is_quantized(type))
    return static_cast<size_t>(panels * ceil_div(k, kQuantGroup) * kPanelCols) * sizeof(uint16_t);
  return type == PackedType::kE4M3
             ? static_cast<size_t>(panels * ceil_div(k, kScaleBlock)) * sizeof(float)
             : 0;
}

// Vectors of 16 bytes, which every instruction set has; memory-bound work gains nothing from more.
using Bytes = uint8_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(16)));

Bytes low(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
Bytes high(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
Halves low(Halves a, Halves b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
Halves high(Halves a, Halves b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

// dst[k][16] = src[16][k] for the k that fill whole vectors; returns how many those are. N rows of
// N elements: a round that interleaves the first half of the rows with the second moves one bit of
// the row number into the column, so log2(N) rounds swap rows and columns.
template <class V, class T>
int64_t transpose16(const T* src, int64_t ld, int64_t k, T* dst) {
  constexpr int kN = static_cast<int>(sizeof(V) / sizeof(T));
  int64_t at = 0;
  for (; at + kN <= k; at += kN) {
    for (int part = 0; part < kPanelCols; part += kN) {
      V rows[kN], mixed[kN];
      for (int r = 0; r < kN; ++r) std::memcpy(&rows[r], src + (part + r) * ld + at, sizeof(V));
#pragma GCC unroll 4
      for (int round = 1; round < kN; round *= 2) {
#pragma GCC unroll 8
        for (int r = 0; r < kN / 2; ++r) {
          mixed[2 * r] = low(rows[r], rows[r + kN / 2]);
          mixed[2 * r + 1] = high(rows[r], rows[r + kN / 2]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kN; ++r) rows[r] = mixed[r];
      }
      for (int r = 0; r < kN; ++r)
        std::memcpy(dst + (at + r) * kPanelCols + part, &rows[r], sizeof(V));
    }
  }
  return at;
}

int64_t transpose16(const uint8_t* src, int64_t ld, int64_t k, uint8_t* dst) {
  return transpose16<Bytes>(src, ld, k, dst);
}
int64_t transpose16(const uint16_t* src, int64_t ld, int64_t k, uint16_t* dst) {
  return transpose16<Halves>(src, ld, k, dst);
}
int64_t transpose16(const float* src, int64_t ld, int64_t k, float* dst) {
  simd::tile_table().transpose(src, ld, k, dst);
  return k;
}

// One panel from `cols` rows of W; plain loops with 64 k at a time, so that the rows stay cached.
template <class T>
void pack_panel_nt(const T* src, int64_t ld, int64_t cols, int64_t k, T* dst) {
  const int64_t done = cols == kPanelCols ? transpose16(src, ld, k, dst) : 0;
  for (int64_t k0 = done; k0 < k; k0 += 64) {
    const int64_t k1 = std::min(k0 + 64, k);
    for (int64_t r = 0; r < kPanelCols; ++r) {
      for (int64_t i = k0; i < k1; ++i) {
        dst[i * kPanelCols + r] = r < cols ? src[r * ld + i] : T(0);
      }
    }
  }
}

template <class T>
void pack_panel_nn(const T* src, int64_t ld, int64_t cols, int64_t k, T* dst) {
  for (int64_t i = 0; i < k; ++i) {
    if (cols == kPanelCols) {
      std::memcpy(dst + i * kPanelCols, src + i * ld, kPanelCols * sizeof(T));
    } else {
      for (int64_t r = 0; r < kPanelCols; ++r) {
        dst[i * kPanelCols + r] = r < cols ? src[i * ld + r] : T(0);
      }
    }
  }
}

void pack_e4m3_scales(const PackParams& p, int64_t panel, float* dst) {
  const int64_t blocks = ceil_div(p.k, kScaleBlock);
  const float* row =
      static_cast<const float*>(p.scales) + panel * kPanelCols / kScaleBlock * blocks;
  for (int64_t kb = 0; kb < blocks; ++kb) dst[panel * blocks + kb] = 256.0f * row[kb];
}

// Columns and k that are not there hold the code of zero.
void pack_panel_q8(const PackParams& p, int64_t n0, int64_t cols, uint8_t* dst) {
  const int64_t size = ceil_div(p.k, kQuantGroup) * quant_group_bytes(PackedType::kQ8);
  if (cols < kPanelCols || p.k % kQuantGroup != 0) std::memset(dst, 128, static_cast<size_t>(size));
  for (int64_t r = 0; r < cols; ++r) {
    const uint8_t* row = static_cast<const uint8_t*>(p.src) + (n0 + r) * p.ld;
    int64_t k = 0;
    for (; k + 4 <= p.k; k += 4) {
      uint32_t four = 0;
      std::memcpy(&four, row + k, 4);
      four ^= 0x80808080u;  // signed to offset
      std::memcpy(dst + (k / 4 * kPanelCols + r) * 4, &four, 4);
    }
    for (; k < p.k; ++k)
      dst[(k / 4 * kPanelCols + r) * 4 + k % 4] = static_cast<uint8_t>(row[k] ^ 128);
  }
}

void pack_panel_q4(const PackParams& p, int64_t n0, int64_t cols, uint8_t* dst) {
  const int64_t bytes = quant_group_bytes(PackedType::kQ4);
  std::memset(dst, 0x88, static_cast<size_t>(ceil_div(p.k, kQuantGroup) * bytes));
  for (int64_t r = 0; r < cols; ++r) {
    const uint8_t* row = static_cast<const uint8_t*>(p.src) + (n0 + r) * p.ld;
    for (int64_t k = 0; k < p.k; ++k) {
      const int code = row[k / 2] >> (k % 2 * 4) & 15;
      const int64_t in_group = k % kQuantGroup, in_half = in_group % (kQuantGroup / 2);
      uint8_t& to = dst[k / kQuantGroup * bytes + (in_half / 4 * kPanelCols + r) * 4 + in_half % 4];
      to = static_cast<uint8_t>(in_group == in_half ? (to & 0xF0) | code : (to & 0x0F) | code << 4);
    }
  }
}

void pack_quant_scales(const PackParams& p, int64_t panel, int64_t cols, uint16_t* dst) {
  const int64_t groups = ceil_div(p.k, kQuantGroup);
  const auto* src = static_cast<const uint16_t*>(p.scales) + panel * kPanelCols * groups;
  uint16_t* to = dst + panel * groups * kPanelCols;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < kPanelCols; ++r)
      to[g * kPanelCols + r] = r < cols ? src[r * groups + g] : uint16_t{0};
}

PackedB packed_view(const PackParams& p) {
  FM_CHECK(reinterpret_cast<uintptr_t>(p.dst) % 64 == 0,
           "packed weights at {} are not aligned to 64", p.dst);
  const bool scaled = scale_bytes(p.type, p.n, p.k) > 0;
  FM_CHECK(!scaled || p.scales != nullptr || p.src == nullptr,
           "scaled weights [{}, {}] without scales", p.n, p.k);
  auto* base = static_cast<char*>(p.dst);
  PackedB b{.type = p.type, .n = p.n, .k = p.k, .data = base};
  if (scaled) b.scales = base + panel_bytes(p.type, p.n, p.k);
  return b;
}

// fn(panel, first row or column, columns) over all panels.
template <class F>
void for_panels(const PackParams& p, ThreadPool& pool, const F& fn) {
  const int64_t panels = ceil_div(p.n, kPanelCols);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, p.k * kPanelCols));
  pool.parallel_for(panels, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t q = begin; q < end; ++q) {
      fn(q, q * kPanelCols, std::min(kPanelCols, p.n - q * kPanelCols));
    }
  });
}

template <class T>
void pack_all_nt(const PackParams& p, ThreadPool& pool) {
  const T* src = static_cast<const T*>(p.src);
  T* dst = static_cast<T*>(p.dst);
  for_panels(p, pool, [&](int64_t q, int64_t n0, int64_t cols) {
    pack_panel_nt(src + n0 * p.ld, p.ld, cols, p.k, dst + q * kPanelCols * p.k);
  });
}

template <class T>
void pack_all_nn(const PackParams& p, ThreadPool& pool) {
  const T* src = static_cast<const T*>(p.src);
  T* dst = static_cast<T*>(p.dst);
  for_panels(p, pool, [&](int64_t q, int64_t n0, int64_t cols) {
    pack_panel_nn(src + n0, p.ld, cols, p.k, dst + q * kPanelCols * p.k);
  });
}

void pack_split(const PackParams& p, ThreadPool& pool) {
  FM_CHECK(simd::has_split_products(), "split products on a machine without them");
  for_panels(p, pool, [&](int64_t q, int64_t n0, int64_t cols) {
    simd::split_columns({.src = static_cast<const float*>(p.src) + n0,
                         .ld = p.ld,
                         .rows = p.k,
                         .cols = cols,
                         .dst = static_cast<uint16_t*>(p.dst) + q * simd::split_stride(p.k)});
  });
}

void pack_quantized(const PackParams& p, const PackedB& b, ThreadPool& pool) {
  const int64_t bytes = ceil_div(p.k, kQuantGroup) * quant_group_bytes(p.type);
  auto* dst = static_cast<uint8_t*>(p.dst);
  for_panels(p, pool, [&](int64_t q, int64_t n0, int64_t cols) {
    if (p.type == PackedType::kQ8)
      pack_panel_q8(p, n0, cols, dst + q * bytes);
    else
      pack_panel_q4(p, n0, cols, dst + q * bytes);
    pack_quant_scales(p, q, cols, static_cast<uint16_t*>(const_cast<void*>(b.scales)));
  });
}

}  // namespace

size_t packed_size_bytes(PackedType type, int64_t n, int64_t k) {
  return panel_bytes(type, n, k) + round_up_64(scale_bytes(type, n, k));
}

PackedB pack_nt(const PackParams& p, ThreadPool& pool) {
  const PackedB b = packed_view(p);
  if (p.src == nullptr) return b;
  switch (p.type) {
    case PackedType::kF32:
      pack_all_nt<float>(p, pool);
      break;
    case PackedType::kBF16:
      pack_all_nt<uint16_t>(p, pool);
      break;
    case PackedType::kE4M3:
      pack_all_nt<uint8_t>(p, pool);
      for_panels(p, pool, [&](int64_t q, int64_t, int64_t) {
        pack_e4m3_scales(p, q, static_cast<float*>(const_cast<void*>(b.scales)));
      });
      break;
    case PackedType::kQ8:
    case PackedType::kQ4:
      pack_quantized(p, b, pool);
      break;
    case PackedType::kSplit:
      FM_CHECK(false, "split panels are for dx = dy W only");
  }
  return b;
}

PackedB pack_nn(const PackParams& p, ThreadPool& pool) {
  FM_CHECK(
      p.type == PackedType::kF32 || p.type == PackedType::kBF16 || p.type == PackedType::kSplit,
      "pack_nn of type {} has no meaning: its scales run along k of W", static_cast<int>(p.type));
  const PackedB b = packed_view(p);
  if (p.src == nullptr) return b;
  if (p.type == PackedType::kSplit) {
    pack_split(p, pool);
  } else if (p.type == PackedType::kF32) {
    pack_all_nn<float>(p, pool);
  } else {
    pack_all_nn<uint16_t>(p, pool);
  }
  return b;
}

}  // namespace fathom
