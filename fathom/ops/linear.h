// Linear maps with trainable, packed weights, and their per-head form for the absorbed products of
// MLA.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fathom/ops/ctx.h"

namespace fathom {

// A weight W [N,K] in the forms its kernels want. A trainable weight has a master in f32 or f64 and
// a gradient; a stored one is used as it stands in the file. pack() must follow every change of the
// master. Copies share everything.
class Weight {
 public:
  Weight() = default;
  static Weight trainable(std::string name, Tensor data);
  static Weight tied(std::string name,
                     const Value& table);  // shares another parameter and its gradient
  static Weight stored(std::string name, Tensor raw,
                       Tensor scale);  // scale may be empty; see WeightRef

  explicit operator bool() const { return packs_ != nullptr; }
  const std::string& name() const { return name_; }
  const Value& value() const { return value_; }  // the master; empty for a stored weight
  const Tensor& raw() const { return raw_; }
  const Tensor& scale() const { return scale_; }
  int64_t out() const { return raw_.view.dim[0]; }
  int64_t in() const { return weight_columns(raw_.view); }
  // (Re)builds the packed forms; the transposed one serves gradients, for the products that ctx
  // names. A no-op for cpu_ref.
  void pack(const Ctx& ctx, bool with_transposed);
  // Builds one packed form alone, for a weight that is used one way only. A forward pass takes a
  // transposed form for the products kF32.
  void pack_form(const Ctx& ctx, bool transposed, GradProducts products = GradProducts::kF32);
  // The forward form in 64-byte aligned memory of packed_bytes() that the caller keeps; 0 bytes:
  // the kernels need no packed form.
  int64_t packed_bytes(const Kernels& kernels, bool transposed = false) const;
  void pack_at(const Ctx& ctx, std::byte* memory);
  // A packed form that pack_form() has made of an equal weight, perhaps in an earlier process.
  void use_packed(const Ctx& ctx, bool transposed, Tensor memory);
  const Tensor& packed_memory(bool transposed) const;  // empty: not packed so
  // Lets go of the stored form once it is packed: sizes and dtype stay, no number can be read.
  void forget_raw();
  WeightRef ref() const;
  // Rows begin .. begin+size-1 as a weight of their own; shares the master and its gradient, packs
  // for itself.
  Weight rows(int64_t begin, int64_t size) const;

 private:
  struct Packs;
  std::string name_;
  Value value_;
  Tensor raw_, scale_;
  std::shared_ptr<Packs> packs_;
};

// y = x W^T;  dx += dy W,  dW += dy^T x.  x [..,K] strided rows. Row t of y depends on row t of x
// only, bit for bit.
Value linear(Ctx& ctx, const Value& x, const Weight& w);

// y[i] = linear(x, *w[i]); without a tape the products may share a parallel region.
void linear_list(Ctx& ctx, const Value& x, std::span<const Weight* const> w, std::span<Value> y);
template <class... W>
std::array<Value, sizeof...(W)> linears(Ctx& ctx, const Value& x, const W&... w) {
  const std::array<const Weight*, sizeof...(W)> weights{&w...};
  std::array<Value, sizeof...(W)> y;
  linear_list(ctx, x, weights, y);
  return y;
}

// y = factor * x
Value scale(Ctx& ctx, const Value& x_TD, double factor);

enum class HeadForm : uint8_t {
  kTransposed,  // y[h] = x[h] w[h]^T, w[h] [N,K]
  kPlain,       // y[h] = x[h] w[h],   w[h] [K,N]
};
// x_THK strided, w of H weights with equal shapes -> y [T,H,N]
Value head_linear(Ctx& ctx, const Value& x_THK, const std::vector<Weight>& w, HeadForm form);

// linear(head_linear(x_THK, heads, form) with its heads side by side, w), where ctx fuses as one
// parallel region.
Value heads_then_linear(Ctx& ctx, const Value& x_THK, const std::vector<Weight>& heads,
                        HeadForm form, const Weight& w);
// y = linear_list(x, w), and head_linear of the first columns of each of y[0]'s equal parts, one a
// head; where ctx fuses as one parallel region.
Value linears_then_heads(Ctx& ctx, const Value& x, std::span<const Weight* const> w,
                         std::span<Value> y, const std::vector<Weight>& heads, HeadForm form);

}  // namespace fathom
