// Index keys in codes (KeyPages with dtype i8): coding of rows, and scores of a page against the
// queries of a tile. All dot products are exact integers and the sums over heads one fma chain, so
// every way of computing them gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/cpu/simd/attention_vec.h"

namespace fathom::simd {

// Of the codes of a row of queries.
constexpr int64_t query_bytes(int64_t I) { return (I + 3) / 4 * 4; }

// Coded queries of some tokens, heads of a token side by side.
struct CodedQueries {
  std::byte* codes = nullptr;  // [rows][query_bytes(I)]
  int32_t* shift = nullptr;    // [rows] -128 * sum of the codes, as keys are stored with 128 added
  float* weight = nullptr;     // [rows] head weight * scale
  int64_t J = 0, I = 0;
};

// The pages that a tile of tokens meets one after the other, and what becomes of their scores.
class PageWalk {
 public:
  struct Page {
    const uint8_t* keys = nullptr;  // null behind the last page
    int64_t pos = 0;                // of its first key
    int64_t first = 0;              // the first token that sees any of its keys
  };
  explicit PageWalk(int64_t num_keys) : num_keys_(num_keys) {}
  virtual ~PageWalk() = default;
  int64_t num_keys() const { return num_keys_; }  // of all threads' walks together
  virtual Page next() = 0;  // called while the page before is still to be scored
  virtual void take(const Page& page, const float* scores) = 0;  // [token - first][64]

 private:
  int64_t num_keys_;
};

// Of one way to compute.
struct IndexCodes {
  // Row `row` of q from the I numbers at x, which are rotated in place; room for 15 more.
  void (*code_query)(float* x, float weight, int64_t row, const CodedQueries& q);
  // Scores of the first `tokens` tokens for all pages; out [tokens][64] is scratch. Rows of q
  // behind the last token's, up to 15, are readable.
  void (*score)(const CodedQueries& q, int64_t tokens, PageWalk* pages, float* out);
  // Codes of a row [I] as in code_query; returns the scale.
  float (*code_row)(float* x, int64_t I, int8_t* codes);
};

// Those of the instruction set that dispatch chose, fastest first.
std::vector<const IndexCodes*> index_codes_tables();
const IndexCodes& index_codes();

}  // namespace fathom::simd
