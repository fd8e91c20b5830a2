// Where named tensors of a forward pass go when somebody wants to see them.
#pragma once

#include <string_view>

#include "fathom/tensor/view.h"

namespace fathom {

// put() is called in program order on the thread that runs the model; the view is valid during the call only.
struct Probe {
  virtual ~Probe() = default;
  virtual void put(std::string_view name, const View& v) = 0;
};

}  // namespace fathom
