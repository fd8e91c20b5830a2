// Weight panels: sizes, packing from both storage orders, int8 quantisation (see gemm.h).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/simd/gemm_tiles.h"
#include "fathom/kernels/gemm.h"

namespace fathom {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
size_t round_up_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t element_bytes(PackedType type) {
  return type == PackedType::kF32 ? 4 : type == PackedType::kBF16 ? 2 : 1;
}

size_t panel_bytes(PackedType type, int64_t n, int64_t k) {
  return round_up_64(
      static_cast<size_t>(ceil_div(n, kPanelCols) * kPanelCols * k * element_bytes(type)));
}

int64_t packed_scales(PackedType type, int64_t n, int64_t k) {
  const int64_t blocks = ceil_div(n, kPanelCols) * ceil_div(k, kScaleBlock);
  return type == PackedType::kE4M3 ? blocks : type == PackedType::kI8 ? blocks * kPanelCols : 0;
}

// One panel from `cols` rows of W; plain loops with 64 k at a time, so that the rows stay cached.
template <class T>
void pack_panel_nt(const T* src, int64_t ld, int64_t cols, int64_t k, T* dst) {
  for (int64_t k0 = 0; k0 < k; k0 += 64) {
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

void pack_scales(const PackParams& p, int64_t panel, float* dst) {
  const int64_t blocks = ceil_div(p.k, kScaleBlock), n0 = panel * kPanelCols;
  for (int64_t kb = 0; kb < blocks; ++kb) {
    if (p.type == PackedType::kE4M3) {
      dst[panel * blocks + kb] = 256.0f * p.scales[n0 / kScaleBlock * blocks + kb];
      continue;
    }
    for (int64_t r = 0; r < kPanelCols; ++r) {
      dst[(panel * blocks + kb) * kPanelCols + r] =
          n0 + r < p.n ? p.scales[(n0 + r) * blocks + kb] : 0.0f;
    }
  }
}

PackedB packed_view(const PackParams& p) {
  FM_CHECK(reinterpret_cast<uintptr_t>(p.dst) % 64 == 0,
           "packed weights at {} are not aligned to 64", p.dst);
  const bool scaled = packed_scales(p.type, p.n, p.k) > 0;
  FM_CHECK(!scaled || p.scales != nullptr, "block-scaled weights [{}, {}] without scales", p.n,
           p.k);
  auto* base = static_cast<char*>(p.dst);
  PackedB b{.type = p.type, .n = p.n, .k = p.k, .data = base};
  if (scaled) b.scales = reinterpret_cast<const float*>(base + panel_bytes(p.type, p.n, p.k));
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
  const simd::TileTable& tiles = simd::tile_table();
  for_panels(p, pool, [&](int64_t q, int64_t n0, int64_t cols) {
    T* panel = dst + q * kPanelCols * p.k;
    if constexpr (std::is_same_v<T, float>) {
      if (cols == kPanelCols) return tiles.transpose(src + n0 * p.ld, p.ld, p.k, panel);
    }
    pack_panel_nt(src + n0 * p.ld, p.ld, cols, p.k, panel);
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

}  // namespace

size_t packed_size_bytes(PackedType type, int64_t n, int64_t k) {
  return panel_bytes(type, n, k) +
         round_up_64(static_cast<size_t>(packed_scales(type, n, k)) * sizeof(float));
}

PackedB pack_nt(const PackParams& p, ThreadPool& pool) {
  const PackedB b = packed_view(p);
  switch (p.type) {
    case PackedType::kF32:
      pack_all_nt<float>(p, pool);
      break;
    case PackedType::kBF16:
      pack_all_nt<uint16_t>(p, pool);
      break;
    case PackedType::kE4M3:
    case PackedType::kI8:
      pack_all_nt<uint8_t>(p, pool);
      break;
  }
  if (b.scales != nullptr) {
    for_panels(p, pool, [&](int64_t q, int64_t, int64_t) {
      pack_scales(p, q, const_cast<float*>(b.scales));
    });
  }
  return b;
}

PackedB pack_nn(const PackParams& p, ThreadPool& pool) {
  FM_CHECK(p.type == PackedType::kF32 || p.type == PackedType::kBF16,
           "pack_nn of type {} has no meaning: its scales run along k of W",
           static_cast<int>(p.type));
  const PackedB b = packed_view(p);
  if (p.type == PackedType::kF32) {
    pack_all_nn<float>(p, pool);
  } else {
    pack_all_nn<uint16_t>(p, pool);
  }
  return b;
}

void quantize_i8(const float* w, int64_t ld, int64_t n, int64_t k, int8_t* codes, float* scales,
                 ThreadPool& pool) {
  const int64_t blocks = ceil_div(k, kScaleBlock);
  pool.parallel_for(n, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, k)),
                    [&](int64_t begin, int64_t end, int) {
                      for (int64_t i = begin * blocks; i < end * blocks; ++i) {
                        const int64_t row = i / blocks, k0 = i % blocks * kScaleBlock;
                        const int64_t k1 = std::min(k0 + kScaleBlock, k);
                        float top = 0;
                        for (int64_t q = k0; q < k1; ++q)
                          top = std::max(top, std::fabs(w[row * ld + q]));
                        const float scale = top / 127.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
                        scales[i] = scale;
                        for (int64_t q = k0; q < k1; ++q) {
                          const float code = std::nearbyint(w[row * ld + q] * inverse);
                          codes[row * k + q] =
                              static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
                        }
                      }
                    });
}

}  // namespace fathom
