// Safetensors files: an 8-byte header length, a JSON header, then the raw little-endian row-major
// data of every tensor. The reader maps the file; the writer streams and leaves either a complete
// file or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  bool e8m0 = false;  // stored as F8_E8M0: bytes b with value 2^(b - 127); dtype is kU8
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the data

  std::string describe() const;  // "BF16 [128, 64]"
};

// The dtype's name in the format, "BF16" for kBF16.
const char* safetensors_dtype_name(DType dtype);

// Copies share the map. Immutable, usable from any thread.
class SafetensorsFile {
 public:
  // Throws Error that names the file and the defect: truncated, header not JSON, unknown dtype,
  // more than kMaxRank dimensions, negative or overflowing sizes, byte counts that do not fit,
  // ranges that overlap or leave gaps, a name twice.
  explicit SafetensorsFile(const std::string& path);
  // The same for bytes in memory, which are copied; `what` stands for the path in messages.
  static SafetensorsFile from_bytes(std::span<const std::byte> bytes, const std::string& what);

  const std::string& path() const;
  const SafetensorsMetadata& metadata() const;
  const std::vector<SafetensorsEntry>& entries() const;       // in the order of their data
  const SafetensorsEntry* find(std::string_view name) const;  // null when absent

  // A read-only view into the map that keeps it alive: writing to it is a fault. Data that the file
  // does not align to the element size (the format allows it) is copied to memory of its own.
  Tensor tensor(const SafetensorsEntry& entry) const;
  Tensor tensor(std::string_view name) const;  // throws Error (kNotFound)
  // Where the entry lies in the file, to read it without the map; empty for from_bytes.
  FileRange range(const SafetensorsEntry& entry) const;
  // The pages of the map leave memory until they are touched again.
  void release_pages() const;

 private:
  struct State;
  explicit SafetensorsFile(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// Entries are declared first, since the header comes first; their begin and end are filled in here.
// Then one write() for each, in that order, then commit(). Without commit() nothing is left behind.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                    const SafetensorsMetadata& metadata = {});
  ~SafetensorsWriter();
  void write(const View& view);  // dtype and sizes as declared; any strides
  // The same in pieces of contiguous data, for tensors that are larger than memory should hold.
  void write_piece(const void* data, size_t size_bytes);
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
  bool e8m0 = false;
};

SafetensorsEntry entry_of(const NamedTensor& tensor);

// Everything at once. Wider elements come first (else the given order), so that all data is
// aligned.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace fathom
