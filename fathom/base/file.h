// Files: whole reads, memory maps, and writes that are either complete or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

std::string read_file(const std::string& path);  // throws Error with path and reason

// Writes to a temporary name in the same folder, fsyncs, renames, fsyncs the folder. On any failure
// (a full disk, say) the temporary file is removed, the old file stays as it was, and Error is
// thrown.
void write_file_atomic(const std::string& path, std::string_view bytes);

// kSynced: a committed file survives a crash of the machine. kUnsynced: the bytes of a file may be
// lost then; its reader has to notice.
enum class Durability : uint8_t { kSynced, kUnsynced };

// The same in pieces, for files larger than memory should hold. Destroying it without commit()
// removes the temporary file. Temporary names are PATH.tmp.PROCESS.NUMBER.
class AtomicWriter {
 public:
  explicit AtomicWriter(const std::string& path, Durability durability = Durability::kSynced);
  ~AtomicWriter();
  AtomicWriter(const AtomicWriter&) = delete;
  AtomicWriter& operator=(const AtomicWriter&) = delete;
  void write(const void* data, size_t size_bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* action);
  std::string path_, temporary_;
  Durability durability_;
  int fd_ = -1;
};

// Read-only shared map of a whole file.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);  // throws Error
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Gives up the memory of all pages; what is touched again is mapped again.
  void release_pages() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// What direct reads align place, size and memory to, and what that may add to the bytes asked for.
inline constexpr uint64_t kDirectAlign = 4096, kDirectSpace = 3 * kDirectAlign;

// Reads at any position, from any thread.
class FileReader {
 public:
  explicit FileReader(const std::string& path);  // throws Error
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  void read(uint64_t offset, std::span<std::byte> to) const;  // all of it; throws Error
  // The same past the system's page cache, where the file system can; else what was read leaves it.
  // `space` has size_bytes + kDirectSpace; the bytes read are a part of it.
  std::span<const std::byte> read_direct(uint64_t offset, uint64_t size_bytes,
                                         std::span<std::byte> space) const;
  void request(uint64_t offset, uint64_t size_bytes) const;  // reading ahead begins; does not wait
  void drop_cached(uint64_t offset, uint64_t size_bytes) const;  // from the system's page cache
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  mutable std::once_flag direct_opened_;
  mutable int direct_fd_ = -1;  // of direct reads; opened for the first one
};

struct FileRange {
  std::shared_ptr<const FileReader> file;
  uint64_t offset = 0, size_bytes = 0;
  explicit operator bool() const { return file != nullptr; }
};

bool file_exists(const std::string& path);
bool folder_exists(const std::string& path);
void make_folders(const std::string& path);                     // like mkdir -p; throws Error
std::vector<std::string> list_folder(const std::string& path);  // names, sorted; throws Error
uint64_t file_size(const std::string& path);                    // bytes; throws Error
// Another text whenever the file may have changed: number, size and times of the file; throws
// Error.
std::string file_stamp(const std::string& path);
void sync_folder(const std::string& path);  // fsync, so that renames in it last

}  // namespace fathom
