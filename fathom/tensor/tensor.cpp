#include "fathom/tensor/tensor.h"

#include <algorithm>
#include <cstring>

namespace fathom {
namespace {

// Calls row(from, to, count) for each innermost row of two views of equal sizes.
template <class F>
void for_each_row(const View& a, const View& b, F row) {
  FM_CHECK(a.rank == b.rank, "ranks {} and {}", a.rank, b.rank);
  for (int i = 0; i < a.rank; ++i)
    FM_CHECK(a.dim[i] == b.dim[i], "axis {}: {} and {}", i, a.dim[i], b.dim[i]);
  if (a.numel() == 0) return;
  const int outer = a.rank - 1;
  int64_t index[kMaxRank] = {};
  for (;;) {
    int64_t offset_a = 0, offset_b = 0;
    for (int i = 0; i < outer; ++i) {
      offset_a += index[i] * a.stride[i];
      offset_b += index[i] * b.stride[i];
    }
    row(a.at_element(offset_a), b.at_element(offset_b), a.last());
    int i = outer - 1;
    for (; i >= 0 && ++index[i] == a.dim[i]; --i) index[i] = 0;
    if (i < 0) return;
  }
}

template <class F>
void with_type(DType t, F f) {
  switch (t) {
    case DType::kF32:
      return f(float{});
    case DType::kF64:
      return f(double{});
    case DType::kBF16:
      return f(bf16{});
    case DType::kF16:
      return f(f16{});
    case DType::kE4M3:
      return f(e4m3{});
    case DType::kI8:
      return f(int8_t{});
    case DType::kU8:
      return f(uint8_t{});
    case DType::kI32:
      return f(int32_t{});
    case DType::kI64:
      return f(int64_t{});
  }
}

template <class T>
double to_double(T x) {
  if constexpr (std::is_arithmetic_v<T>)
    return static_cast<double>(x);
  else
    return static_cast<double>(to_float(x));
}

template <class T>
T from_double(double x) {
  if constexpr (std::is_arithmetic_v<T>)
    return static_cast<T>(x);
  else if constexpr (std::is_same_v<T, bf16>)
    return to_bf16(static_cast<float>(x));
  else if constexpr (std::is_same_v<T, f16>)
    return to_f16(static_cast<float>(x));
  else
    return to_e4m3(static_cast<float>(x));
}

}  // namespace

Tensor empty(Arena& arena, DType dtype, std::initializer_list<int64_t> dims) {
  View v = make_view(nullptr, dtype, dims);
  std::shared_ptr<std::byte> block = arena.allocate(v.size_bytes());
  v.data = block.get();
  return {v, std::move(block)};
}

Tensor zeros(Arena& arena, DType dtype, std::initializer_list<int64_t> dims) {
  Tensor t = empty(arena, dtype, dims);
  std::memset(t.view.data, 0, static_cast<size_t>(t.view.size_bytes()));
  return t;
}

void fill_zero(const View& v) {
  for_each_row(v, v, [&](void* row, void*, int64_t n) {
    std::memset(row, 0, static_cast<size_t>(n * dtype_bytes(v.dtype)));
  });
}

void copy(const View& from, const View& to) {
  FM_CHECK(from.dtype == to.dtype, "copy from {} to {}", dtype_name(from.dtype),
           dtype_name(to.dtype));
  for_each_row(from, to, [&](void* a, void* b, int64_t n) {
    std::memcpy(b, a, static_cast<size_t>(n * dtype_bytes(from.dtype)));
  });
}

void convert(const View& from, const View& to) {
  if (from.dtype == to.dtype) return copy(from, to);
  if (from.dtype == DType::kF32 && to.dtype == DType::kBF16)  // every row of a cache
    return for_each_row(from, to, [](void* a, void* b, int64_t n) {
      std::transform(static_cast<const float*>(a), static_cast<const float*>(a) + n,
                     static_cast<bf16*>(b), to_bf16);
    });
  for_each_row(from, to, [&](void* a, void* b, int64_t n) {
    with_type(from.dtype, [&]<class A>(A) {
      with_type(to.dtype, [&]<class B>(B) {
        const A* x = static_cast<const A*>(a);
        B* y = static_cast<B*>(b);
        for (int64_t i = 0; i < n; ++i) y[i] = from_double<B>(to_double(x[i]));
      });
    });
  });
}

double get_element(const View& v, int64_t i) {
  FM_CHECK(v.contiguous() && i >= 0 && i < v.numel(), "element {} of {}", i, v.numel());
  double out = 0;
  with_type(v.dtype, [&]<class T>(T) { out = to_double(static_cast<const T*>(v.data)[i]); });
  return out;
}

}  // namespace fathom
