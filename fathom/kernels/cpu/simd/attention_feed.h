// Asks for rows of keys ahead of their use, a few lines of the cache at a time, so that memory
// works while products are computed: asked for all at once, requests wait for each other and what
// is computed waits for them.
#pragma once

#include <cstdint>

namespace fathom::simd {

// Runs over two lists of rows, the one in use and the one that follows.
class KeyFeed {
 public:
  // Rows have so many bytes; there are none yet.
  void start(int64_t bytes) {
    *this = KeyFeed();
    bytes_ = bytes;
  }
  // n rows follow those of the last call, whose rows are in use from now on. Both lists stay where
  // they are.
  void then(const void* const* key, int64_t n) {
    if (next_ != next_end_) begin_next();
    next_ = key;
    next_end_ = key + n;
  }
  // Asks for the next lines, if any are left.
  void ask(int64_t lines) {
    for (; lines > 0 && (at_ < row_end_ || next_row()); --lines, at_ += 64) request(at_);
  }

 private:
  static void request(const char* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);  // the second-level cache, whose misses more of wait at once
#endif
  }
  void begin_next() {
    key_ = next_;
    end_ = next_end_;
    next_ = next_end_;
  }
  bool next_row() {
    if (key_ == end_) {
      if (next_ == next_end_) return false;
      begin_next();
    }
    const char* row = static_cast<const char*>(*key_++);
    at_ = row - reinterpret_cast<uintptr_t>(row) % 64;
    row_end_ = row + bytes_;
    return true;
  }

  const void* const* key_ = nullptr;  // rows in use that nobody asked for
  const void* const* end_ = nullptr;
  const void* const* next_ = nullptr;
  const void* const* next_end_ = nullptr;
  const char *at_ = nullptr, *row_end_ = nullptr;  // of the row that is asked for
  int64_t bytes_ = 0;
};

}  // namespace fathom::simd
