// How long work tells its caller how far it is: the library never prints.
#pragma once

#include <cstdint>

namespace fathom {

class WorkProgress {
 public:
  virtual ~WorkProgress() = default;
  // `done` of `total` bytes. Called by one thread at a time, `done` never falls.
  virtual void put(int64_t done_bytes, int64_t total_bytes) = 0;
};

}  // namespace fathom
