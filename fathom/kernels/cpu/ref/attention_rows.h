// What the reference attention kernels share: where a query row stands, which keys it sees, reading
// key rows as f64.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/kernels.h"

namespace fathom::ref {

struct RowPlace {
  int64_t seq = 0;
  int64_t pos = 0;
};

inline RowPlace place_of(const QueryRows& rows, int64_t t) {
  const int32_t* end = rows.first_row + rows.num_seq + 1;
  // The last sequence that starts at or before row t; empty sequences start where the next one
  // does.
  const int64_t seq = std::upper_bound(rows.first_row, end, t) - rows.first_row - 1;
  return {seq, rows.first_pos[seq] + t - rows.first_row[seq]};
}

// The positions that row t attends to, ascending: its selection, or everything up to itself.
inline void visible_keys(const View& sel, int64_t t, int64_t pos, std::vector<int64_t>* out) {
  out->clear();
  if (!sel) {
    for (int64_t s = 0; s <= pos; ++s) out->push_back(s);
    return;
  }
  const int32_t* row = sel.as<int32_t>() + t * sel.stride[0];
  for (int64_t i = 0; i < sel.dim[1] && row[i] >= 0; ++i) out->push_back(row[i]);
}

// A row of KeyPages with codes.
inline double coded_element(const uint8_t* row, DType dtype, int64_t coded, int64_t i) {
  if (i >= coded) {
    bf16 x;
    std::memcpy(&x, row + coded_rest_at(coded) + 2 * (i - coded), sizeof x);
    return static_cast<double>(to_float(x));
  }
  float scale = 0;
  std::memcpy(&scale, row + coded_scales_at(coded) + i / 128 * 4, sizeof scale);
  const float code = dtype == DType::kI8 ? static_cast<int8_t>(row[i]) : to_float(e4m3{row[i]});
  return static_cast<double>(code) * static_cast<double>(scale);
}

inline double key_element(const KeyPages& keys, int64_t seq, int64_t pos, int64_t i) {
  const void* page = keys.page[keys.first_page[seq] + pos / kPageTokens];
  const int64_t at = pos % kPageTokens * keys.stride + i;
  switch (keys.dtype) {
    case DType::kF32:
      return static_cast<double>(static_cast<const float*>(page)[at]);
    case DType::kF64:
      return static_cast<const double*>(page)[at];
    case DType::kBF16:
      return static_cast<double>(to_float(static_cast<const bf16*>(page)[at]));
    case DType::kE4M3:
    case DType::kI8:
      return coded_element(static_cast<const uint8_t*>(page) + pos % kPageTokens * keys.stride,
                           keys.dtype, keys.coded, i);
    default:
      break;
  }
  FM_CHECK(false, "keys of type {}", dtype_name(keys.dtype));
  return 0;
}

// Codes of an index key or query (IndexCode of kernels.h): x [I] is rotated in place; returns the
// scale.
float code_index_row(float* x, int64_t I, int8_t* codes);
// Codes of n numbers, -127 .. 127 = the largest size; returns the scale (LatentCode).
float code_numbers(const float* x, int64_t n, int8_t* codes);
// Where the four codes of the page's key `row` from number i on stand; i a multiple of 4.
inline int64_t index_code_at(int64_t I, int64_t row, int64_t i) {
  return ((row / 16 * ((I + 3) / 4) + i / 4) * 16 + row % 16) * 4;
}
inline int64_t index_scales_at(int64_t I) { return kPageTokens * ((I + 3) / 4 * 4); }

template <class R>
R* at(const View& v, int64_t a) {
  return v.as<R>() + a * v.stride[0];
}
template <class R>
R* at(const View& v, int64_t a, int64_t b) {
  return v.as<R>() + a * v.stride[0] + b * v.stride[1];
}

template <class R>
double dot(const R* a, const R* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

template <class R>
void store_sums(const std::vector<double>& sums, R* y, bool add) {
  for (size_t i = 0; i < sums.size(); ++i)
    y[i] = static_cast<R>(add ? static_cast<double>(y[i]) + sums[i] : sums[i]);
}

template <class F>
void by_real(DType t, F f) {
  if (t == DType::kF64) return f(double{});
  FM_CHECK(t == DType::kF32, "activations of type {}", dtype_name(t));
  f(float{});
}

// In place: scores become probabilities. Returns log sum exp (-inf without keys).
double softmax(std::vector<double>* scores);

// The K best entries of `scores`, ascending by index (kernels.h, IndexSelect).
std::vector<int32_t> best_scored(const std::vector<double>& scores, int64_t topk);

}  // namespace fathom::ref
