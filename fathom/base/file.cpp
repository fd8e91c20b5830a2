#include "fathom/base/file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "fathom/base/error.h"

namespace fathom {
namespace {

Code code_of(int err) {
  switch (err) {
    case ENOENT:
      return Code::kNotFound;
    case ENOSPC:
    case EDQUOT:
      return Code::kExhausted;
    case EIO:
      return Code::kDataLoss;
    default:
      return Code::kInvalidArgument;
  }
}

std::string hint_of(int err) {
  switch (err) {
    case ENOENT:
      return "check the path";
    case ENOSPC:
    case EDQUOT:
      return "free some disk space and try again";
    case EACCES:
      return "check the permissions";
    default:
      return "";
  }
}

[[noreturn]] void fail_errno(const char* action, const std::string& path, int err) {
  throw Error(code_of(err), fmt::format("{}: cannot {}: {}", path, action, std::strerror(err)),
              hint_of(err));
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

int open_or_fail(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno("open", path, errno);
  return fd;
}

}  // namespace

std::string read_file(const std::string& path) {
  const int fd = open_or_fail(path);
  std::string out;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n > 0) out.append(buffer, static_cast<size_t>(n));
    if (n == 0) break;
    if (n < 0 && errno != EINTR) {
      const int err = errno;
      ::close(fd);
      fail_errno("read", path, err);
    }
  }
  ::close(fd);
  return out;
}

AtomicWriter::AtomicWriter(const std::string& path, Durability durability)
    : path_(path), durability_(durability) {
  static std::atomic<unsigned> serial{0};
  temporary_ = fmt::format("{}.tmp.{}.{}", path, ::getpid(), serial.fetch_add(1));
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno("create", path_, errno);
}

AtomicWriter::~AtomicWriter() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicWriter::fail(const char* action) {
  const int err = errno;
  ::close(std::exchange(fd_, -1));
  ::unlink(temporary_.c_str());
  fail_errno(action, path_, err);
}

void AtomicWriter::write(const void* data, size_t size_bytes) {
  const char* p = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t n = ::write(fd_, p, std::min<size_t>(size_bytes, size_t{1} << 30));
    if (n < 0) {
      if (errno == EINTR) continue;
      fail("write");
    }
    p += n;
    size_bytes -= static_cast<size_t>(n);
  }
}

void AtomicWriter::commit() {
  if (durability_ == Durability::kSynced && ::fsync(fd_) != 0) fail("sync");
  if (::close(std::exchange(fd_, -1)) != 0) {
    const int err = errno;
    ::unlink(temporary_.c_str());
    fail_errno("close", path_, err);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int err = errno;
    ::unlink(temporary_.c_str());
    fail_errno("rename", path_, err);
  }
  if (durability_ == Durability::kSynced) sync_folder(parent_of(path_));
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
  AtomicWriter writer(path);
  writer.write(bytes.data(), bytes.size());
  writer.commit();
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open_or_fail(path);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(Code::kInvalidArgument, fmt::format("{}: expected a regular file", path));
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
      const int err = errno;
      ::close(fd);
      fail_errno("map", path, err);
    }
    data_ = static_cast<const std::byte*>(p);
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release_pages() const {
  if (data_) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

FileReader::FileReader(const std::string& path) : path_(path), fd_(open_or_fail(path)) {}

FileReader::~FileReader() {
  ::close(fd_);
  if (direct_fd_ >= 0) ::close(direct_fd_);
}

void FileReader::read(uint64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t n = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("read", path_, errno);
    if (n == 0)
      throw Error(
          Code::kDataLoss,
          fmt::format("{}: expected {} more bytes at {}, the file ends", path_, to.size(), offset),
          "the file was cut while it was in use");
    offset += static_cast<uint64_t>(n);
    to = to.subspan(static_cast<size_t>(n));
  }
}

std::span<const std::byte> FileReader::read_direct(uint64_t offset, uint64_t size_bytes,
                                                   std::span<std::byte> space) const {
  FM_CHECK(space.size() >= size_bytes + kDirectSpace, "{} bytes of space for {}", space.size(),
           size_bytes);
  std::call_once(direct_opened_,
                 [&] { direct_fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT); });
  const uint64_t begin = offset / kDirectAlign * kDirectAlign;
  const uint64_t end = (offset + size_bytes + kDirectAlign - 1) / kDirectAlign * kDirectAlign;
  const auto address = reinterpret_cast<uintptr_t>(space.data());
  std::byte* const to = space.data() + (kDirectAlign - address % kDirectAlign) % kDirectAlign;
  const std::span<const std::byte> out(to + (offset - begin), size_bytes);
  uint64_t at = begin;
  while (direct_fd_ >= 0 && at < offset + size_bytes) {
    const ssize_t n = ::pread(direct_fd_, to + (at - begin), end - at, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || static_cast<uint64_t>(n) % kDirectAlign != 0) {
      at += n > 0 ? static_cast<uint64_t>(n) : 0;
      break;  // the end of the file, or no such reads there
    }
    at += static_cast<uint64_t>(n);
  }
  if (at >= offset + size_bytes) return out;
  read(offset, {to + (offset - begin), size_bytes});
  drop_cached(offset, size_bytes);
  return out;
}

void FileReader::request(uint64_t offset, uint64_t size_bytes) const {
  // The kernel cuts each request to its read-ahead window.
  constexpr uint64_t kWindow = 512 << 10;
  for (uint64_t at = 0; at < size_bytes; at += kWindow)
    ::posix_fadvise(fd_, static_cast<off_t>(offset + at),
                    static_cast<off_t>(std::min(kWindow, size_bytes - at)), POSIX_FADV_WILLNEED);
}

void FileReader::drop_cached(uint64_t offset, uint64_t size_bytes) const {
  ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(size_bytes),
                  POSIX_FADV_DONTNEED);
}

bool file_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool folder_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void make_folders(const std::string& path) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) fail_errno("create the folder", path, ec.value());
}

std::vector<std::string> list_folder(const std::string& path) {
  std::error_code ec;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec))
    names.push_back(it->path().filename().string());
  if (ec) fail_errno("list the folder", path, ec.value());
  std::sort(names.begin(), names.end());
  return names;
}

uint64_t file_size(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) fail_errno("read the size of", path, errno);
  return static_cast<uint64_t>(info.st_size);
}

std::string file_stamp(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) fail_errno("read the times of", path, errno);
  return fmt::format("{} {} {}.{:09} {}.{:09}", info.st_ino, info.st_size, info.st_mtim.tv_sec,
                     info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno("open the folder", path, errno);
  const int rc = ::fsync(fd);
  const int err = errno;
  ::close(fd);
  if (rc != 0) fail_errno("sync the folder", path, err);
}

}  // namespace fathom
