// The linear maps of the vector backend: views and packed weights become calls of kernels/gemm.h.
#include <span>
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/ref.h"
#include "fathom/kernels/cpu/simd/simd.h"
#include "fathom/kernels/gemm.h"

namespace fathom::simd {
namespace {

PackedType packed_type(DType t) {
  switch (t) {
    case DType::kF32:
      return PackedType::kF32;
    case DType::kBF16:
      return PackedType::kBF16;
    case DType::kE4M3:
      return PackedType::kE4M3;
    case DType::kI8:
      return PackedType::kQ8;
    case DType::kU8:
      return PackedType::kQ4;
    default:
      break;
  }
  FM_CHECK(false, "weights of type {} are converted before they are packed", dtype_name(t));
  return PackedType::kF32;
}

// Of a packed form: weights that fill no tile are not worth splitting.
PackedType form_type(const PackWeight& a) {
  const bool split = a.transposed && a.products == GradProducts::kSplit &&
                     a.raw.dtype == DType::kF32 && a.raw.dim[0] >= 32 && a.raw.dim[1] >= 32;
  return split ? PackedType::kSplit : packed_type(a.raw.dtype);
}

bool is_f64(const View& v) { return v.dtype == DType::kF64; }

const PackedB& packed_or_fail(const PackedB* p, const char* what) {
  FM_CHECK(p != nullptr, "the weight has no {} packed form: call Weight::pack", what);
  return *p;
}

GemmParams gemm_of(const View& a, const int32_t* rows, const PackedB& b, const View& c, bool add) {
  return {.a = a.as<float>(),
          .lda = a.stride[0],
          .a_rows = rows,
          .b = b,
          .c = c.as<float>(),
          .ldc = c.stride[0],
          .m = c.dim[0],
          .add = add};
}

// Head h of a [T,H,X] view as [T,X] rows.
View head_rows(const View& v, int64_t h) {
  View out = make_view(v.at_element(h * v.stride[1]), v.dtype, {v.dim[0], v.dim[2]});
  out.stride[0] = v.stride[0];
  return out;
}

WeightGradParams grad_of(const View& dy, const View& x, const int32_t* rows, const View& dw,
                         bool add, GradProducts products) {
  return {.dy = dy.as<float>(),
          .ldy = dy.stride[0],
          .x = x.as<float>(),
          .ldx = x.stride[0],
          .x_rows = rows,
          .dw = dw.as<float>(),
          .ldw = dw.stride[0],
          .m = dy.dim[0],
          .n = dw.dim[0],
          .k = dw.dim[1],
          .add = add,
          .products = products};
}

void grouped(const View& x, const int32_t* rows, const std::vector<PackedB>& b,
             const int32_t* offset, const View& y, bool add, ThreadPool& pool) {
  gemm_grouped({.a = x.as<float>(),
                .lda = x.stride[0],
                .a_rows = rows,
                .b = b.data(),
                .offsets = offset,
                .groups = static_cast<int64_t>(b.size()),
                .c = y.as<float>(),
                .ldc = y.stride[0],
                .add = add},
               pool);
}

// The list is the calling thread's, until the next call.
const std::vector<GemmParams>& products_of(const Linear* list, int64_t count) {
  thread_local std::vector<GemmParams> products;
  products.clear();
  for (const Linear& a : std::span(list, static_cast<size_t>(count)))
    products.push_back(gemm_of(a.x, a.rows, packed_or_fail(a.w.packed, "forward"), a.y, a.add));
  return products;
}

// The same; a list of its own.
const std::vector<GemmParams>& products_of(const HeadLinear& a) {
  thread_local std::vector<GemmParams> products;
  products.clear();
  for (int64_t h = 0; h < a.x.dim[1]; ++h) {
    const PackedB& b = a.transposed ? packed_or_fail(a.w[h].packed, "forward")
                                    : packed_or_fail(a.w[h].packed_t, "transposed");
    products.push_back(gemm_of(head_rows(a.x, h), nullptr, b, head_rows(a.y, h), a.add));
  }
  return products;
}

bool quantised(const HeadLinear& a) {
  const PackedB* b = a.transposed ? a.w[0].packed : a.w[0].packed_t;
  return !is_f64(a.x) && b && is_quantized(b->type);
}

}  // namespace

int64_t packed_bytes(const PackWeight& a) {
  if (is_f64(a.raw)) return 0;
  const int64_t n = a.raw.dim[0], k = weight_columns(a.raw);
  return static_cast<int64_t>(
      packed_size_bytes(form_type(a), a.transposed ? k : n, a.transposed ? n : k));
}

void pack(const Exec& exec, const PackWeight& a) {
  if (is_f64(a.raw)) return;
  const int64_t n = a.raw.dim[0], k = weight_columns(a.raw);
  const PackParams p{.type = form_type(a),
                     .n = a.transposed ? k : n,
                     .k = a.transposed ? n : k,
                     .src = a.raw.data,
                     .ld = a.raw.stride[0],
                     .scales = a.scale.data,
                     .dst = a.dst};
  *a.out = a.transposed ? pack_nn(p, *exec.pool) : pack_nt(p, *exec.pool);
}

void linear(const Exec& exec, const Linear& a) {
  if (is_f64(a.x)) return ref::linear(exec, a);
  gemm(gemm_of(a.x, a.rows, packed_or_fail(a.w.packed, "forward"), a.y, a.add), *exec.pool);
}

void linears(const Exec& exec, const Linear* list, int64_t count) {
  if (count > 0 && is_f64(list[0].x)) return ref::linears(exec, list, count);
  const std::vector<GemmParams>& products = products_of(list, count);
  gemm_many(products.data(), count, *exec.pool);
}

void linear_dx(const Exec& exec, const LinearDx& a) {
  if (is_f64(a.dy)) return ref::linear_dx(exec, a);
  gemm(gemm_of(a.dy, nullptr, packed_or_fail(a.w.packed_t, "transposed"), a.dx, a.add), *exec.pool);
}

void linear_dw(const Exec& exec, const LinearDw& a) {
  if (is_f64(a.x)) return ref::linear_dw(exec, a);
  gemm_weight_grad(grad_of(a.dy, a.x, a.rows, a.dw, a.add, exec.gradient_products), *exec.pool);
}

void grouped_linear(const Exec& exec, const GroupedLinear& a) {
  if (is_f64(a.x)) return ref::grouped_linear(exec, a);
  std::vector<PackedB> b;
  for (int64_t e = 0; e < a.num_groups; ++e) b.push_back(packed_or_fail(a.w[e].packed, "forward"));
  grouped(a.x, a.rows, b, a.offset, a.y, false, *exec.pool);
}

void grouped_linear_dx(const Exec& exec, const GroupedLinearDx& a) {
  if (is_f64(a.dy)) return ref::grouped_linear_dx(exec, a);
  std::vector<PackedB> b;
  for (int64_t e = 0; e < a.num_groups; ++e)
    b.push_back(packed_or_fail(a.w[e].packed_t, "transposed"));
  grouped(a.dy, a.rows, b, a.offset, a.dx, a.add, *exec.pool);
}

void grouped_linear_dw(const Exec& exec, const GroupedLinearDw& a) {
  if (is_f64(a.x)) return ref::grouped_linear_dw(exec, a);
  if (a.num_groups == 0) return;
  // Groups that start and groups that continue a gradient are rarely mixed; each kind is one call.
  for (const bool add : {false, true}) {
    for (int64_t e = 0; e < a.num_groups;) {
      if (a.add[e] != add) {
        ++e;
        continue;
      }
      std::vector<float*> dw;
      const int64_t first = e;
      for (; e < a.num_groups && a.add[e] == add; ++e) dw.push_back(a.dw[e].as<float>());
      gemm_weight_grad_grouped({.dy = a.dy.as<float>(),
                                .ldy = a.dy.stride[0],
                                .dy_rows = a.dy_rows,
                                .x = a.x.as<float>(),
                                .ldx = a.x.stride[0],
                                .x_rows = a.rows,
                                .offsets = a.offset + first,
                                .groups = static_cast<int64_t>(dw.size()),
                                .dw = dw.data(),
                                .ldw = a.dw[first].stride[0],
                                .n = a.dw[first].dim[0],
                                .k = a.dw[first].dim[1],
                                .add = add,
                                .products = exec.gradient_products},
                               *exec.pool);
    }
  }
}

void head_linear(const Exec& exec, const HeadLinear& a) {
  if (is_f64(a.x)) return ref::head_linear(exec, a);
  const int64_t H = a.x.dim[1];
  const std::vector<GemmParams>& heads = products_of(a);
  if (H > 0 && is_quantized(heads[0].b.type)) return gemm_many(heads.data(), H, *exec.pool);
  ThreadPool serial(1);  // the heads are the parallel dimension
  exec.pool->parallel_for(H, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t h = begin; h < end; ++h) gemm(heads[static_cast<size_t>(h)], serial);
  });
}

void linears_then_heads(const Exec& exec, const Linear* list, int64_t count,
                        const HeadLinear& then) {
  if (quantised(then)) return gemm_chain(products_of(list, count), products_of(then), *exec.pool);
  linears(exec, list, count);
  head_linear(exec, then);
}

void heads_then_linear(const Exec& exec, const HeadLinear& a, const Linear& then) {
  if (quantised(a)) return gemm_chain(products_of(a), products_of(&then, 1), *exec.pool);
  head_linear(exec, a);
  linear(exec, then);
}

void head_linear_dw(const Exec& exec, const HeadLinearDw& a) {
  if (is_f64(a.x)) return ref::head_linear_dw(exec, a);
  ThreadPool serial(1);
  exec.pool->parallel_for(a.x.dim[1], 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t h = begin; h < end; ++h) {
      const View x = head_rows(a.x, h), dy = head_rows(a.dy, h), dw = slice(a.dw, 0, h, 1);
      const View dw_NK = [&] {
        View v = make_view(dw.data, dw.dtype, {a.dw.dim[1], a.dw.dim[2]});
        v.stride[0] = a.dw.stride[1];
        return v;
      }();
      gemm_weight_grad(grad_of(a.transposed ? dy : x, a.transposed ? x : dy, nullptr, dw_NK, a.add,
                               exec.gradient_products),
                       serial);
    }
  });
}

}  // namespace fathom::simd
