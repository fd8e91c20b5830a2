// Messages from process to process: what a transport such as MPI provides and collectives are built
// of.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

// Messages between two ranks arrive in the order in which they were sent. Throws Error when the
// transport fails. One thread.
class Wire {
 public:
  using Transfer = int64_t;                             // an open one
  static constexpr size_t kMaxBytes = size_t{1} << 30;  // of a message

  virtual ~Wire() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Both return at once; the memory stays untouched until done() was true. A receiver knows the
  // size.
  virtual Transfer send(int to, const void* data, size_t size_bytes) = 0;
  virtual Transfer receive(int from, void* data, size_t size_bytes) = 0;
  // Moves messages on. After true the transfer is forgotten.
  virtual bool done(Transfer* t) = 0;
  // As Comm::abandon.
  virtual void abandon(int exit_code) noexcept = 0;
};

}  // namespace fathom
