// Random attention problems for the tests of this folder and a pool, arena and Exec to run them
// with.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/kernels/kernels.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct TestExec {
  explicit TestExec(int threads = 1) : pool(threads) {}
  Arena arena;
  ThreadPool pool;
  Exec exec{&pool, &arena};

  Tensor make(std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    return empty(arena, dtype, dims);
  }
  // Normal numbers from the stream (name, index).
  Tensor random(std::initializer_list<int64_t> dims, const char* name, uint64_t index = 0) {
    Tensor t = make(dims);
    Rng rng(7, name, index);
    for (int64_t i = 0; i < t.view.numel(); ++i)
      t.as<float>()[i] = static_cast<float>(rng.normal());
    return t;
  }
};

// Packed sequences of the given sizes; each starts at first_pos (0 unless given).
struct TestRows {
  std::vector<int32_t> first_row{0}, first_pos;
  explicit TestRows(const std::vector<int>& sizes, std::vector<int32_t> pos = {}) : first_pos(pos) {
    for (const int n : sizes) first_row.push_back(first_row.back() + n);
    first_pos.resize(sizes.size(), 0);
  }
  QueryRows ref() const {
    return {static_cast<int64_t>(first_pos.size()), first_row.data(), first_pos.data()};
  }
  int64_t rows() const { return first_row.back(); }
};

// Cache pages in shuffled order, f32 or bf16, with NaN in every slot that holds no key.
struct TestPages {
  std::vector<std::vector<float>> f32;
  std::vector<std::vector<uint16_t>> half;
  std::vector<const void*> page;
  std::vector<int32_t> first_page;
  int64_t stride = 0;
  DType dtype = DType::kF32;

  // keys[b] holds `width` numbers for each position of sequence b.
  TestPages(const std::vector<std::vector<float>>& keys, int64_t width, int64_t row_stride,
            DType type)
      : stride(row_stride), dtype(type) {
    for (const std::vector<float>& seq : keys) {
      first_page.push_back(static_cast<int32_t>(f32.size()));
      const int64_t n = static_cast<int64_t>(seq.size()) / width;
      for (int64_t p = 0; p < n; p += kPageTokens) {
        std::vector<float> data(static_cast<size_t>(kPageTokens * stride),
                                std::numeric_limits<float>::quiet_NaN());
        for (int64_t r = p; r < std::min(n, p + kPageTokens); ++r)
          std::copy_n(seq.data() + r * width, width, data.data() + (r - p) * stride);
        f32.push_back(std::move(data));
      }
    }
    for (const std::vector<float>& data : f32) {
      half.emplace_back();
      for (const float x : data) half.back().push_back(to_bf16(x).bits);
    }
    for (size_t i = 0; i < f32.size(); ++i)
      page.push_back(type == DType::kF32 ? static_cast<const void*>(f32[i].data())
                                         : half[i].data());
  }
  KeyPages ref() const { return {page.data(), first_page.data(), stride, dtype}; }
};

// Pages of coded keys of one sequence.
struct CodedPages {
  std::vector<Tensor> pages;
  std::vector<const void*> page;
  std::vector<int32_t> first_page{0};
  CodedPages(const Kernels& kernels, TestExec& t, const Tensor& k, int64_t piece = kPageTokens) {
    const int64_t n = k.view.dim[0], I = k.view.dim[1];
    for (int64_t at = 0; at < n; at += kPageTokens) {
      pages.push_back(t.make({kPageTokens * index_code_bytes(I)}, DType::kU8));
      page.push_back(pages.back().view.data);
      std::memset(pages.back().view.data, 0, static_cast<size_t>(pages.back().view.numel()));
    }
    for (int64_t at = 0; at < n;) {
      const int64_t size = std::min({n - at, piece, kPageTokens - at % kPageTokens});
      kernels.index_code(t.exec, {.x = slice(k, 0, at, size),
                                  .page = pages[static_cast<size_t>(at / kPageTokens)].view.data,
                                  .first = at % kPageTokens});
      at += size;
    }
  }
  KeyPages ref(int64_t I) const {
    return {page.data(), first_page.data(), index_code_bytes(I), DType::kI8};
  }
};

inline std::vector<std::vector<float>> random_keys(const std::vector<int>& sizes, int64_t width,
                                                   const char* name) {
  std::vector<std::vector<float>> out;
  for (size_t b = 0; b < sizes.size(); ++b) {
    Rng rng(11, name, b);
    std::vector<float> seq(static_cast<size_t>(sizes[b] * width));
    for (float& x : seq) x = static_cast<float>(rng.normal());
    out.push_back(std::move(seq));
  }
  return out;
}

// A random ascending choice of min(K, pos + 1) positions per row, padded with -1.
inline Tensor random_selection(TestExec& t, const TestRows& rows, int64_t topk) {
  Tensor sel = t.make({rows.rows(), topk}, DType::kI32);
  for (size_t b = 0; b < rows.first_pos.size(); ++b)
    for (int32_t r = rows.first_row[b]; r < rows.first_row[b + 1]; ++r) {
      const int64_t pos = rows.first_pos[b] + r - rows.first_row[b];
      Rng rng(13, "selection", static_cast<uint64_t>(pos) * 64 + b);
      int64_t need = std::min(topk, pos + 1);
      int32_t* out = sel.as<int32_t>() + r * topk;
      std::fill(out, out + topk, -1);
      for (int64_t s = 0; s <= pos && need > 0; ++s) {
        if (static_cast<int64_t>(rng.below(static_cast<uint64_t>(pos + 1 - s))) >= need) continue;
        *out++ = static_cast<int32_t>(s);
        --need;
      }
    }
  return sel;
}

inline bool same_bits(const View& a, const View& b) {
  return std::memcmp(a.data, b.data, static_cast<size_t>(a.size_bytes())) == 0;
}

// Largest difference relative to the largest reference value (at least 1).
inline double relative_error(const View& got, const View& want) {
  double top = 1, worst = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    const double g = static_cast<double>(got.as<float>()[i]);
    const double w = static_cast<double>(want.as<float>()[i]);
    top = std::max(top, std::abs(w));
    const double e = std::abs(g - w);
    if (!(e <= worst)) worst = std::isnan(e) ? 1e30 : e;
  }
  return worst / top;
}

}  // namespace fathom
