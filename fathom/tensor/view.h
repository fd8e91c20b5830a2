// A tensor without ownership: pointer, element type, sizes, strides. Plain data, so it travels into
// kernels.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "fathom/base/error.h"
#include "fathom/tensor/dtype.h"

namespace fathom {

inline constexpr int kMaxRank = 4;

// Row-major order, PyTorch's dimension order. The last dimension is contiguous; outer strides are
// in elements.
struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  int64_t dim[kMaxRank] = {};
  int64_t stride[kMaxRank] = {};

  explicit operator bool() const { return data != nullptr; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  int64_t size_bytes() const { return numel() * dtype_bytes(dtype); }
  int64_t last() const { return rank ? dim[rank - 1] : 1; }
  // product of all but the last dimension
  int64_t rows() const { return last() ? numel() / last() : 0; }
  bool contiguous() const {
    int64_t expect = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (dim[i] != 1 && stride[i] != expect) return false;
      expect *= dim[i];
    }
    return true;
  }
  template <class T>
  T* as() const {
    FM_CHECK(dtype == DTypeOf<T>::value, "view is {}, asked for {}", dtype_name(dtype),
             dtype_name(DTypeOf<T>::value));
    return static_cast<T*>(data);
  }
  void* at_element(int64_t offset) const {
    return static_cast<char*>(data) + offset * dtype_bytes(dtype);
  }
};

// A contiguous view of memory that somebody else owns.
View make_view(const void* data, DType dtype, std::initializer_list<int64_t> dims);

// The same elements under other sizes; the view must be contiguous and the count equal.
View reshape(const View& v, std::initializer_list<int64_t> dims);
// Splits the last dimension into [a, b] with a * b == last; works for strided views too.
View split_dim(const View& v, int64_t a, int64_t b);
// Joins the last two dimensions; they must be contiguous with each other.
View merge_dims(const View& v);
// Elements [begin, begin + size) of dimension `axis`.
View slice(const View& v, int axis, int64_t begin, int64_t size);

}  // namespace fathom
