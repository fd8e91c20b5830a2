#include "fathom/tensor/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom {
namespace {

DType kept_type(DType t) {
  switch (t) {
    case DType::kF64:
      return DType::kF64;
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
      return DType::kI64;
    default:
      return DType::kF32;
  }
}

Tensor empty_like(Arena& arena, const View& v, DType dtype) {
  Tensor flat = empty(arena, dtype, {v.numel()});
  flat.view.rank = v.rank;
  int64_t stride = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    flat.view.dim[i] = v.dim[i];
    flat.view.stride[i] = stride;
    stride *= v.dim[i];
  }
  return flat;
}

bool close(double a, double b, double limit) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::fabs(a - b) <= limit;
}

std::optional<TensorDifference> compare(const std::string& name, const View& a, const View& b,
                                        double tolerance) {
  double largest = 0;
  const int64_t n = a.numel();
  if (tolerance > 0)
    for (int64_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(get_element(a, i)));
  TensorDifference d{.name = name, .what = "", .index = {}};
  for (int64_t i = 0; i < n; ++i) {
    const double x = get_element(a, i), y = get_element(b, i);
    if (x != y) d.worst = std::fmax(d.worst, std::fabs(x - y));
    if (!d.what.empty() || close(x, y, tolerance * largest)) continue;
    d.what = "values";
    d.a = x;
    d.b = y;
    d.index.resize(static_cast<size_t>(a.rank));
    int64_t rest = i;
    for (int axis = a.rank - 1; axis >= 0; --axis) {
      d.index[static_cast<size_t>(axis)] = rest % a.dim[axis];
      rest /= a.dim[axis];
    }
  }
  if (d.what.empty()) return std::nullopt;
  return d;
}

}  // namespace

void MemoryProbe::put(std::string_view name, const View& view) {
  std::string key(name);
  const int64_t times = count_[key]++;
  if (times > 0) key += fmt::format("@{}", times);
  Tensor kept = empty_like(arena_, view, kept_type(view.dtype));
  if (view.numel() > 0) convert(view, kept);
  index_[key] = tensors_.size();
  tensors_.push_back({std::move(key), std::move(kept)});
}

const Tensor* MemoryProbe::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second].tensor;
}

void MemoryProbe::clear() {
  tensors_.clear();
  index_.clear();
  count_.clear();
}

void MemoryProbe::write(const std::string& path) const {
  std::vector<SafetensorsEntry>
      entries;  // in the order of put(), so that a diff finds the earliest
  for (const NamedTensor& t : tensors_) entries.push_back(entry_of(t));
  SafetensorsWriter writer(path, std::move(entries));
  for (const NamedTensor& t : tensors_) writer.write(t.tensor);
  writer.commit();
}

std::string TensorDifference::describe() const {
  if (what != "values") return fmt::format("{}: {}", name, what);
  return fmt::format("{}[{}]: {:.9g} and {:.9g}, largest difference {:.3g}", name,
                     fmt::join(index, ", "), a, b, worst);
}

std::optional<TensorDifference> first_difference(const std::string& file_a,
                                                 const std::string& file_b, double tolerance) {
  const SafetensorsFile a(file_a), b(file_b);
  for (const SafetensorsEntry& left : a.entries()) {
    const SafetensorsEntry* right = b.find(left.name);
    if (!right)
      return TensorDifference{.name = left.name, .what = "absent in " + file_b, .index = {}};
    if (left.shape != right->shape || left.dtype != right->dtype)
      return TensorDifference{
          .name = left.name, .what = left.describe() + " and " + right->describe(), .index = {}};
    auto found = compare(left.name, a.tensor(left), b.tensor(*right), tolerance);
    if (found) return found;
  }
  for (const SafetensorsEntry& right : b.entries())
    if (!a.find(right.name))
      return TensorDifference{.name = right.name, .what = "absent in " + file_a, .index = {}};
  return std::nullopt;
}

}  // namespace fathom
