// Progress of work that is counted in bytes, as a line on stderr.
#pragma once

#include <string>

#include "fathom/base/work_progress.h"
#include "fathom/cli/progress.h"

namespace fathom {

class ByteProgress final : public WorkProgress {
 public:
  explicit ByteProgress(std::string what) : line_(std::move(what), 100, "MB") {}
  // In percent, because byte counts are too long to read.
  void put(int64_t done_bytes, int64_t total_bytes) override {
    total_bytes_ = total_bytes;
    line_.update(total_bytes > 0 ? 100 * done_bytes / total_bytes : 100,
                 static_cast<double>(done_bytes) / 1e6);
  }
  int64_t total_bytes() const { return total_bytes_; }

 private:
  Progress line_;
  int64_t total_bytes_ = 0;
};

}  // namespace fathom
