// Memory for tensors. Freed blocks are kept by size class: giving large blocks back to the kernel
// costs more in page faults than the arithmetic on them. Large blocks are 2 MB aligned and ask for
// huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace fathom {

struct ArenaStats {
  int64_t in_use_bytes = 0;     // handed out now
  int64_t peak_bytes = 0;       // largest in_use_bytes so far
  int64_t reserved_bytes = 0;   // taken from the kernel
  int64_t kernel_requests = 0;  // how often; constant in steady state
};

// Thread-safe. Blocks may outlive the Arena object: they hold its state.
class Arena {
 public:
  Arena();
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised, aligned to 64 bytes (2 MB for large blocks); freed when the last owner goes.
  // Throws Error when memory is out.
  std::shared_ptr<std::byte> allocate(int64_t size_bytes);
  ArenaStats stats() const;

 private:
  struct State;
  State* state_;  // goes with the last block
};

}  // namespace fathom
