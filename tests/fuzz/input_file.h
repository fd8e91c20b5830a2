// A file in memory for parsers that take a path.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <string>

#include "fathom/base/error.h"

namespace fathom {

class InputFile {
 public:
  InputFile(const void* data, size_t size_bytes) : fd_(::memfd_create("input", MFD_CLOEXEC)) {
    const auto* bytes = static_cast<const char*>(data);
    while (size_bytes > 0) {
      const ssize_t n = ::write(fd_, bytes, size_bytes);
      FM_CHECK(n > 0, "cannot write {} bytes of input", size_bytes);
      bytes += n;
      size_bytes -= static_cast<size_t>(n);
    }
  }
  ~InputFile() { ::close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace fathom
