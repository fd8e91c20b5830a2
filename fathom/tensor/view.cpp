#include "fathom/tensor/view.h"

namespace fathom {
namespace {

void fill_strides(View& v) {
  int64_t s = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.stride[i] = s;
    s *= v.dim[i];
  }
}

}  // namespace

View make_view(const void* data, DType dtype, std::initializer_list<int64_t> dims) {
  FM_CHECK(dims.size() <= kMaxRank, "rank {}", dims.size());
  View v;
  v.data = const_cast<void*>(data);
  v.dtype = dtype;
  for (const int64_t d : dims) {
    FM_CHECK(d >= 0, "dimension {}", d);
    v.dim[v.rank++] = d;
  }
  fill_strides(v);
  return v;
}

View reshape(const View& v, std::initializer_list<int64_t> dims) {
  View out = make_view(v.data, v.dtype, dims);
  FM_CHECK(v.contiguous(), "reshape of a strided view");
  FM_CHECK(out.numel() == v.numel(), "reshape of {} elements to {}", v.numel(), out.numel());
  return out;
}

View split_dim(const View& v, int64_t a, int64_t b) {
  FM_CHECK(v.rank < kMaxRank && v.last() == a * b, "last dimension {} is not {} x {}", v.last(), a,
           b);
  View out = v;
  out.dim[v.rank - 1] = a;
  out.stride[v.rank - 1] = b;
  out.dim[v.rank] = b;
  out.stride[v.rank] = 1;
  ++out.rank;
  return out;
}

View merge_dims(const View& v) {
  FM_CHECK(v.rank >= 2 && (v.stride[v.rank - 2] == v.last() || v.dim[v.rank - 2] == 1),
           "the last two dimensions are not contiguous");
  View out = v;
  --out.rank;
  out.dim[out.rank - 1] *= v.last();
  out.stride[out.rank - 1] = 1;
  return out;
}

View slice(const View& v, int axis, int64_t begin, int64_t size) {
  FM_CHECK(axis >= 0 && axis < v.rank && begin >= 0 && size >= 0 && begin + size <= v.dim[axis],
           "slice [{}, {}) of axis {} with {} elements", begin, begin + size, axis,
           axis < v.rank ? v.dim[axis] : -1);
  View out = v;
  out.data = v.at_element(begin * v.stride[axis]);
  out.dim[axis] = size;
  return out;
}

}  // namespace fathom
