// Weights in the form that kernels read, in a file beside the checkpoint: mapped at load instead of
// made. A copy that can be made again; it counts only for the program, the files and the options
// that it was made with (docs/formats.md).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/ops/linear.h"

namespace fathom {

// A weight as it was before it was packed, and the bytes of its packed forms; 0: not made.
struct PackedEntry {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 0, columns = 0;  // of the stored form
  int64_t forward_bytes = 0, transposed_bytes = 0;

  View outline() const { return make_view(nullptr, dtype, {rows, columns}); }
};

struct PackedHeader {
  std::string owner;
  std::vector<PackedEntry> entries;
  uint64_t data_begin = 0;  // the forms follow in order, each at a multiple of 64 bytes
};

// Throws Error that names the defect unless header and size of the file belong together.
PackedHeader parse_packed_header(std::span<const std::byte> file, const std::string& path);

class PackedWeights {
 public:
  // Null when there is no such file, or one of another owner or for other kernels. Throws Error for
  // a damaged one. Threads of ctx ask the system for all of it.
  static std::shared_ptr<const PackedWeights> open(const Ctx& ctx, const std::string& path,
                                                   const std::string& owner);
  const std::vector<PackedEntry>& entries() const { return header_.entries; }
  // A weight that has its packed forms and nothing else; keeps the map.
  Weight weight(const Ctx& ctx, size_t entry) const;
  void give_forms(const Ctx& ctx, size_t entry, Weight& to) const;

 private:
  PackedWeights(MappedFile file, PackedHeader header);
  Tensor form(size_t entry, bool transposed) const;

  std::shared_ptr<MappedFile> file_;
  PackedHeader header_;
  std::vector<uint64_t> begin_;  // of each entry's forward form
};

struct Packing {
  Weight weight;
  bool forward = true, transposed = false;  // the forms that the forward pass uses
};
// Throws Error; the file is complete or absent.
void write_packed_weights(const std::string& path, const std::string& owner,
                          const std::vector<Packing>& weights);

}  // namespace fathom
