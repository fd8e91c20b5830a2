#include "fathom/model/packed_weights.h"

#include <sys/mman.h>

#include <cstring>
#include <numeric>

#include "fathom/base/json.h"
#include "fathom/base/sha256.h"
#include "fathom/base/thread_pool.h"
#include "fathom/tensor/safetensors.h"

namespace fathom {
namespace {

constexpr char kMagic[9] = "fmpack01";
constexpr uint64_t kAlign = 64;
constexpr uint64_t kPrefix = 16;  // magic and size of the header
constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI8, DType::kU8};

uint64_t aligned(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

DType parse_type(const std::string& name) {
  for (const DType t : kTypes)
    if (name == safetensors_dtype_name(t)) return t;
  throw Error(Code::kDataLoss, fmt::format("expected a type of weights, found {}", name));
}

PackedEntry parse_entry(const Json& json) {
  const std::vector<Json>& items = json.items();
  if (items.size() != 6)
    throw Error(Code::kDataLoss, fmt::format("expected 6 items, found {}", items.size()));
  PackedEntry e{.name = items[0].as_string(),
                .dtype = parse_type(items[1].as_string()),
                .rows = items[2].as_int(),
                .columns = items[3].as_int(),
                .forward_bytes = items[4].as_int(),
                .transposed_bytes = items[5].as_int()};
  constexpr int64_t kLimit = int64_t{1} << 40;
  const int64_t rest = e.forward_bytes % int64_t{kAlign} + e.transposed_bytes % int64_t{kAlign};
  for (const int64_t n : {e.rows, e.columns, e.forward_bytes, e.transposed_bytes})
    if (n < 0 || n > kLimit || rest != 0)
      throw Error(Code::kDataLoss, fmt::format("{}: impossible sizes", e.name));
  return e;
}

Json entry_json(const PackedEntry& e) {
  return Json::array({Json::string(e.name), Json::string(safetensors_dtype_name(e.dtype)),
                      Json::number(e.rows), Json::number(e.columns), Json::number(e.forward_bytes),
                      Json::number(e.transposed_bytes)});
}

// The file in writes of a huge page each: the system then keeps it in huge pages, and maps those.
class PageWriter {
 public:
  explicit PageWriter(AtomicWriter& file) : file_(file), page_(kPage) {}
  void write(const void* data, size_t size) {
    for (const char* from = static_cast<const char*>(data); size > 0;) {
      const size_t part = std::min(size, kPage - used_);
      std::memcpy(page_.data() + used_, from, part);
      used_ += part;
      from += part;
      size -= part;
      if (used_ == kPage) flush();
    }
  }
  void flush() {
    file_.write(page_.data(), used_);
    used_ = 0;
  }

 private:
  static constexpr size_t kPage = size_t{2} << 20;
  AtomicWriter& file_;
  std::vector<char> page_;
  size_t used_ = 0;
};

// All pages at once instead of a fault for each few; huge ones where they have to be read.
void populate(ThreadPool& pool, std::span<const std::byte> file) {
  constexpr int64_t kPiece = int64_t{16} << 20;
  const auto size = static_cast<int64_t>(file.size());
  ::madvise(const_cast<std::byte*>(file.data()), file.size(), MADV_HUGEPAGE);
  pool.parallel_for((size + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end, int) {
    auto* at = const_cast<std::byte*>(file.data()) + begin * kPiece;
    const int64_t bytes = std::min(end * kPiece, size) - begin * kPiece;
    ::madvise(at, static_cast<size_t>(bytes), MADV_POPULATE_READ);  // or faults as before
  });
}

}  // namespace

PackedHeader parse_packed_header(std::span<const std::byte> file, const std::string& path) {
  const auto bad = [&](const std::string& what) {
    throw Error(Code::kDataLoss, fmt::format("{}: {}", path, what), "delete the file");
  };
  uint64_t size = 0;
  if (file.size() < kPrefix || std::memcmp(file.data(), kMagic, 8) != 0)
    bad("expected packed weights, found another file");
  std::memcpy(&size, file.data() + 8, 8);
  if (size > file.size() - kPrefix) bad(fmt::format("a header of {} bytes", size));
  PackedHeader h;
  try {
    const auto* text = reinterpret_cast<const char*>(file.data() + kPrefix);
    const Json json = Json::parse({text, size}, path);
    h.owner = json.at("owner").as_string();
    for (const Json& e : json.at("weights").items()) h.entries.push_back(parse_entry(e));
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    bad(e.message());
  }
  h.data_begin = aligned(kPrefix + size);
  uint64_t end = h.data_begin;
  for (const PackedEntry& e : h.entries) {
    end += static_cast<uint64_t>(e.forward_bytes + e.transposed_bytes);
    if (end > file.size()) break;
  }
  if (end != file.size()) bad(fmt::format("expected {} bytes or more, found {}", end, file.size()));
  return h;
}

PackedWeights::PackedWeights(MappedFile file, PackedHeader header)
    : file_(std::make_shared<MappedFile>(std::move(file))), header_(std::move(header)) {
  uint64_t at = header_.data_begin;
  for (const PackedEntry& e : header_.entries) {
    begin_.push_back(at);
    at += static_cast<uint64_t>(e.forward_bytes + e.transposed_bytes);
  }
}

std::shared_ptr<const PackedWeights> PackedWeights::open(const Ctx& ctx, const std::string& path,
                                                         const std::string& owner) {
  if (!file_exists(path)) return nullptr;
  MappedFile file(path);
  PackedHeader header = parse_packed_header(file.bytes(), path);
  if (header.owner != sha256_hex(owner)) return nullptr;
  for (const PackedEntry& e : header.entries)
    for (const bool transposed : {false, true}) {
      const int64_t bytes = transposed ? e.transposed_bytes : e.forward_bytes;
      if (bytes != 0 &&
          bytes != ctx.kernels.packed_bytes({.raw = e.outline(), .transposed = transposed}))
        return nullptr;
    }
  populate(ctx.pool, file.bytes());
  return std::shared_ptr<const PackedWeights>(
      new PackedWeights(std::move(file), std::move(header)));
}

Tensor PackedWeights::form(size_t entry, bool transposed) const {
  const PackedEntry& e = header_.entries[entry];
  const int64_t bytes = transposed ? e.transposed_bytes : e.forward_bytes;
  if (bytes == 0) return {};
  const uint64_t at = begin_[entry] + static_cast<uint64_t>(transposed ? e.forward_bytes : 0);
  return {make_view(const_cast<std::byte*>(file_->bytes().data()) + at, DType::kU8, {bytes}),
          file_};
}

void PackedWeights::give_forms(const Ctx& ctx, size_t entry, Weight& to) const {
  for (const bool transposed : {false, true})
    if (Tensor memory = form(entry, transposed)) to.use_packed(ctx, transposed, std::move(memory));
}

Weight PackedWeights::weight(const Ctx& ctx, size_t entry) const {
  const PackedEntry& e = header_.entries[entry];
  Weight w = Weight::stored(e.name, Tensor(e.outline(), nullptr), {});
  give_forms(ctx, entry, w);
  return w;
}

void write_packed_weights(const std::string& path, const std::string& owner,
                          const std::vector<Packing>& weights) {
  Json entries = Json::array();
  for (const Packing& s : weights) {
    const View& raw = s.weight.raw();
    const auto bytes = [&](bool stored, bool transposed) {
      const Tensor& memory = s.weight.packed_memory(transposed);
      return stored && memory ? memory.view.numel() : 0;
    };
    entries.push(entry_json({s.weight.name(), raw.dtype, raw.dim[0], raw.dim[1],
                             bytes(s.forward, false), bytes(s.transposed, true)}));
  }
  std::string header =
      Json::object({{"owner", Json::string(sha256_hex(owner))}, {"weights", std::move(entries)}})
          .dump();
  header.resize(aligned(kPrefix + header.size()) - kPrefix, ' ');
  const uint64_t size = header.size();
  AtomicWriter target(path);
  PageWriter file(target);
  file.write(kMagic, 8);
  file.write(&size, 8);
  file.write(header.data(), header.size());
  for (const Packing& s : weights)
    for (const bool transposed : {false, true}) {
      const Tensor& memory = s.weight.packed_memory(transposed);
      if ((transposed ? s.transposed : s.forward) && memory)
        file.write(memory.view.data, static_cast<size_t>(memory.view.numel()));
    }
  file.flush();
  target.commit();
}

}  // namespace fathom
