// A view that shares ownership of its memory.
#pragma once

#include <memory>
#include <utility>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// Copies share the memory. `owner` keeps arena blocks or file maps alive.
struct Tensor {
  View view;
  std::shared_ptr<const void> owner;

  Tensor() = default;
  Tensor(View v, std::shared_ptr<const void> o) : view(v), owner(std::move(o)) {}
  explicit operator bool() const { return static_cast<bool>(view); }
  operator const View&() const { return view; }  // NOLINT: a tensor is usable wherever a view is
  template <class T>
  T* as() const {
    return view.as<T>();
  }
};

Tensor empty(Arena& arena, DType dtype, std::initializer_list<int64_t> dims);  // uninitialised
Tensor zeros(Arena& arena, DType dtype, std::initializer_list<int64_t> dims);

void fill_zero(const View& v);                // any strides
void copy(const View& from, const View& to);  // same sizes and dtype, any strides
// Same sizes; converts between f32, f64, bf16, f16, e4m3 (no scales) and the integer types.
void convert(const View& from, const View& to);
// Element i of the flattened contiguous view as double.
double get_element(const View& v, int64_t i);

}  // namespace fathom
