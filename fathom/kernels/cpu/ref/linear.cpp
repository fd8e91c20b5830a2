// Reference linear maps: one f64 sum per output, k ascending; of quantised weights the rule of
// gemm.h, with activations rounded to f32.
#include <vector>

#include "fathom/base/thread_pool.h"
#include "fathom/kernels/cpu/ref/quantized.h"
#include "fathom/kernels/cpu/ref/ref.h"

namespace fathom::ref {
namespace {

constexpr int64_t kBlock = 128;  // of weight scales

// Element (n, k) of a stored weight as double.
double weight_at(const WeightRef& w, int64_t n, int64_t k) {
  const int64_t i = n * w.raw.stride[0] + k;
  switch (w.raw.dtype) {
    case DType::kF32:
      return static_cast<double>(w.raw.as<float>()[i]);
    case DType::kF64:
      return w.raw.as<double>()[i];
    case DType::kBF16:
      return static_cast<double>(to_float(w.raw.as<bf16>()[i]));
    case DType::kF16:
      return static_cast<double>(to_float(w.raw.as<f16>()[i]));
    case DType::kE4M3: {
      const float scale = w.scale.as<float>()[n / kBlock * w.scale.stride[0] + k / kBlock];
      return static_cast<double>(to_float(w.raw.as<e4m3>()[i])) * static_cast<double>(scale);
    }
    default:
      break;
  }
  FM_CHECK(false, "weights of type {}", dtype_name(w.raw.dtype));
  return 0;
}

std::vector<double> dense_weight(const WeightRef& w) {
  const int64_t n = w.raw.dim[0], k = w.raw.dim[1];
  std::vector<double> out(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) out[static_cast<size_t>(i * k + j)] = weight_at(w, i, j);
  return out;
}

template <class F>
void by_real(DType t, F f) {
  if (t == DType::kF64) return f(double{});
  FM_CHECK(t == DType::kF32, "activations of type {}", dtype_name(t));
  f(float{});
}

template <class R>
void store(R* y, double sum, bool add) {
  *y = static_cast<R>(add ? static_cast<double>(*y) + sum : sum);
}

// y[m, n] = sum_k x[m, k] b(k, n), with b given by strides into a dense matrix
template <class R>
void product(const Exec& exec, const R* x, int64_t ldx, const int32_t* rows, const double* b,
             int64_t b_k, int64_t b_n, R* y, int64_t ldy, int64_t M, int64_t N, int64_t K,
             bool add) {
  exec.pool->parallel_for(M, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      const R* row = x + (rows ? rows[m] : m) * ldx;
      for (int64_t n = 0; n < N; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < K; ++k) sum += static_cast<double>(row[k]) * b[k * b_k + n * b_n];
        store(y + m * ldy + n, sum, add);
      }
    }
  });
}

// The same with a quantised weight.
template <class R>
void coded_product(const Exec& exec, const R* x, int64_t ldx, const int32_t* rows,
                   const WeightRef& w, R* y, int64_t ldy, int64_t M, bool add) {
  const PackedType type = w.raw.dtype == DType::kI8 ? PackedType::kQ8 : PackedType::kQ4;
  const auto* codes = static_cast<const uint8_t*>(w.raw.data);
  const auto* scales = static_cast<const uint16_t*>(w.scale.data);
  const int64_t N = w.raw.dim[0], K = weight_columns(w.raw);
  exec.pool->parallel_for(M, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      const R* row = x + (rows ? rows[m] : m) * ldx;
      const std::vector<float> f32(row, row + K);
      const CodedRow coded = code_row(f32.data(), K);
      for (int64_t n = 0; n < N; ++n) {
        const float sum =
            coded_dot(coded, type, codes + n * w.raw.stride[0], scales + n * w.scale.stride[0]);
        R& out = y[m * ldy + n];
        out = add ? out + static_cast<R>(sum) : static_cast<R>(sum);
      }
    }
  });
}

template <class R>
void outer(const Exec& exec, const R* dy, int64_t lddy, const int32_t* dy_rows, const R* x,
           int64_t ldx, const int32_t* rows, R* dw, int64_t lddw, int64_t M, int64_t N, int64_t K,
           bool add) {
  exec.pool->parallel_for(N, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<double> sum(static_cast<size_t>(K));
    for (int64_t n = begin; n < end; ++n) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t m = 0; m < M; ++m) {
        const double g = static_cast<double>(dy[(dy_rows ? dy_rows[m] : m) * lddy + n]);
        const R* row = x + (rows ? rows[m] : m) * ldx;
        for (int64_t k = 0; k < K; ++k)
          sum[static_cast<size_t>(k)] += g * static_cast<double>(row[k]);
      }
      for (int64_t k = 0; k < K; ++k) store(dw + n * lddw + k, sum[static_cast<size_t>(k)], add);
    }
  });
}

}  // namespace

int64_t packed_bytes(const PackWeight&) { return 0; }
void pack(const Exec&, const PackWeight&) {}

void linear(const Exec& exec, const Linear& a) {
  if (is_quantized(a.w.raw.dtype))
    return by_real(a.x.dtype, [&]<class R>(R) {
      coded_product(exec, a.x.as<R>(), a.x.stride[0], a.rows, a.w, a.y.as<R>(), a.y.stride[0],
                    a.y.dim[0], a.add);
    });
  const std::vector<double> w = dense_weight(a.w);
  const int64_t N = a.w.raw.dim[0], K = a.w.raw.dim[1];
  by_real(a.x.dtype, [&]<class R>(R) {
    product(exec, a.x.as<R>(), a.x.stride[0], a.rows, w.data(), 1, K, a.y.as<R>(), a.y.stride[0],
            a.y.dim[0], N, K, a.add);
  });
}

void linears(const Exec& exec, const Linear* list, int64_t count) {
  for (int64_t i = 0; i < count; ++i) linear(exec, list[i]);
}

namespace {

void dx_of_rows(const Exec& exec, const LinearDx& a, const int32_t* rows) {
  const std::vector<double> w = dense_weight(a.w);
  const int64_t N = a.w.raw.dim[0], K = a.w.raw.dim[1];
  by_real(a.dy.dtype, [&]<class R>(R) {
    product<R>(exec, a.dy.as<R>(), a.dy.stride[0], rows, w.data(), K, 1, a.dx.as<R>(),
               a.dx.stride[0], a.dx.dim[0], K, N, a.add);
  });
}

void dw_of_rows(const Exec& exec, const LinearDw& a, const int32_t* dy_rows, int64_t M) {
  by_real(a.x.dtype, [&]<class R>(R) {
    outer(exec, a.dy.as<R>(), a.dy.stride[0], dy_rows, a.x.as<R>(), a.x.stride[0], a.rows,
          a.dw.as<R>(), a.dw.stride[0], M, a.dw.dim[0], a.dw.dim[1], a.add);
  });
}

// Rows begin .. of a list that is read by rows or as it stands.
View part(const View& v, const int32_t* rows, int64_t begin, int64_t size) {
  return rows ? v : slice(v, 0, begin, size);
}
const int32_t* part(const int32_t* rows, int64_t begin) { return rows ? rows + begin : nullptr; }

}  // namespace

void linear_dx(const Exec& exec, const LinearDx& a) { dx_of_rows(exec, a, nullptr); }

void linear_dw(const Exec& exec, const LinearDw& a) { dw_of_rows(exec, a, nullptr, a.dy.dim[0]); }

void grouped_linear(const Exec& exec, const GroupedLinear& a) {
  for (int64_t e = 0; e < a.num_groups; ++e) {
    const int64_t begin = a.offset[e], size = a.offset[e + 1] - begin;
    if (size == 0) continue;
    linear(exec, {.x = part(a.x, a.rows, begin, size),
                  .rows = part(a.rows, begin),
                  .w = a.w[e],
                  .y = slice(a.y, 0, begin, size)});
  }
}

void grouped_linear_dx(const Exec& exec, const GroupedLinearDx& a) {
  for (int64_t e = 0; e < a.num_groups; ++e) {
    const int64_t begin = a.offset[e], size = a.offset[e + 1] - begin;
    if (size == 0) continue;
    dx_of_rows(exec,
               {.dy = part(a.dy, a.rows, begin, size),
                .w = a.w[e],
                .dx = slice(a.dx, 0, begin, size),
                .add = a.add},
               part(a.rows, begin));
  }
}

void grouped_linear_dw(const Exec& exec, const GroupedLinearDw& a) {
  for (int64_t e = 0; e < a.num_groups; ++e) {
    const int64_t begin = a.offset[e], size = a.offset[e + 1] - begin;
    dw_of_rows(exec,
               {.dy = part(a.dy, a.dy_rows, begin, size),
                .x = part(a.x, a.rows, begin, size),
                .rows = part(a.rows, begin),
                .dw = a.dw[e],
                .add = a.add[e]},
               part(a.dy_rows, begin), size);
  }
}

void head_linear(const Exec& exec, const HeadLinear& a) {
  for (int64_t h = 0; h < a.x.dim[1]; ++h) {
    if (is_quantized(a.w[h].raw.dtype)) {
      FM_CHECK(a.transposed, "quantised weights are used along their rows only");
      by_real(a.x.dtype, [&]<class R>(R) {
        coded_product<R>(exec, a.x.as<R>() + h * a.x.stride[1], a.x.stride[0], nullptr, a.w[h],
                         a.y.as<R>() + h * a.y.stride[1], a.y.stride[0], a.x.dim[0], a.add);
      });
      continue;
    }
    const std::vector<double> w = dense_weight(a.w[h]);
    const int64_t rows = a.w[h].raw.dim[0], columns = a.w[h].raw.dim[1];
    const int64_t N = a.transposed ? rows : columns, K = a.transposed ? columns : rows;
    by_real(a.x.dtype, [&]<class R>(R) {
      product<R>(exec, a.x.as<R>() + h * a.x.stride[1], a.x.stride[0], nullptr, w.data(),
                 a.transposed ? 1 : columns, a.transposed ? columns : 1,
                 a.y.as<R>() + h * a.y.stride[1], a.y.stride[0], a.x.dim[0], N, K, a.add);
    });
  }
}

void linears_then_heads(const Exec& exec, const Linear* list, int64_t count,
                        const HeadLinear& then) {
  linears(exec, list, count);
  head_linear(exec, then);
}

void heads_then_linear(const Exec& exec, const HeadLinear& a, const Linear& then) {
  head_linear(exec, a);
  linear(exec, then);
}

void head_linear_dw(const Exec& exec, const HeadLinearDw& a) {
  for (int64_t h = 0; h < a.x.dim[1]; ++h) {
    by_real(a.x.dtype, [&]<class R>(R) {
      const R* x = a.x.as<R>() + h * a.x.stride[1];
      const R* dy = a.dy.as<R>() + h * a.dy.stride[1];
      R* dw = a.dw.as<R>() + h * a.dw.stride[0];
      const int64_t T = a.x.dim[0];
      if (a.transposed)
        outer<R>(exec, dy, a.dy.stride[0], nullptr, x, a.x.stride[0], nullptr, dw, a.dw.stride[1],
                 T, a.dw.dim[1], a.dw.dim[2], a.add);
      else
        outer<R>(exec, x, a.x.stride[0], nullptr, dy, a.dy.stride[0], nullptr, dw, a.dw.stride[1],
                 T, a.dw.dim[1], a.dw.dim[2], a.add);
    });
  }
}

}  // namespace fathom::ref
