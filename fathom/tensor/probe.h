// A hook through which a computation shows its intermediate tensors by name: for golden
// comparisons, dumps and diffs. Code that computes takes a Probe pointer and calls put() where it
// is not null.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/tensor/safetensors.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct Probe {
  virtual ~Probe() = default;
  // Called by one thread at a time. The view is only valid during the call.
  virtual void put(std::string_view name, const View& view) = 0;
};

// Keeps a contiguous copy of everything: floating types of up to 32 bits as f32, f64 as f64,
// integers as i64. A name that comes again (a second step) is kept as "name@1", then "name@2".
class MemoryProbe : public Probe {
 public:
  void put(std::string_view name, const View& view) override;

  const std::vector<NamedTensor>& tensors() const { return tensors_; }  // in the order of put()
  const Tensor* find(std::string_view name) const;                      // null when absent
  void clear();
  // One safetensors file; throws Error.
  void write(const std::string& path) const;

 private:
  Arena arena_;
  std::vector<NamedTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, int64_t, std::less<>> count_;
};

struct TensorDifference {
  std::string name;
  std::string what;  // "values", or what is not comparable: "absent in B", "F32 [2] and F32 [3]"
  std::vector<int64_t> index;  // coordinates of the first differing element
  double a = 0, b = 0;
  double worst = 0;  // largest |a - b| in the tensor

  std::string describe() const;
};

// The first tensor, in the order of file a, that is not the same in file b; tensors that only b has
// come last. Elements differ unless |a - b| <= tolerance * max|a of the tensor|; NaN equals NaN
// only. Throws Error when a file cannot be read.
std::optional<TensorDifference> first_difference(const std::string& file_a,
                                                 const std::string& file_b, double tolerance = 0);

}  // namespace fathom
