// Shared by the reference kernels: the choice of the real type, rows of views, and stores that
// write or add.
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom::ref {

// Calls f(float{}) or f(double{}).
template <class F>
void with_real(DType t, F f) {
  if (t == DType::kF64) return f(double{});
  FM_CHECK(t == DType::kF32, "activations of type {}", dtype_name(t));
  f(float{});
}

template <class R>
R* row_of(const View& v, int64_t t) {
  return v.as<R>() + t * v.stride[0];
}

// Null for an absent tensor.
template <class R>
R* optional_row(const View& v, int64_t t) {
  return v ? row_of<R>(v, t) : nullptr;
}

template <class R>
double wide(R x) {
  return static_cast<double>(x);
}

template <class R>
void put(R* y, double value, bool add) {
  *y = static_cast<R>(add ? wide(*y) + value : value);
}

}  // namespace fathom::ref
