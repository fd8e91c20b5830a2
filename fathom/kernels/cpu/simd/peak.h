// What this machine can do, measured: the denominators of every "percent of peak" that a bench
// prints.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

class ThreadPool;

// Fused multiply-adds from registers only, on all threads of the pool for about `seconds`; flop/s.
double measure_fma_peak(ThreadPool& pool, double seconds);

// One pass over `bytes` (a multiple of 64; 64-byte aligned) with all threads, each in one stream;
// bytes/s. To see memory, the buffer must be far larger than the caches and lie on huge pages.
double measure_read_bandwidth(ThreadPool& pool, const void* data, size_t bytes);

// Anonymous zeroed memory on huge pages where the kernel grants them; released by the destructor.
class HugeBuffer {
 public:
  explicit HugeBuffer(size_t bytes);
  ~HugeBuffer();
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t size_bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace fathom
