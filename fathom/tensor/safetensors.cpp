#include "fathom/tensor/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"

namespace fathom {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr size_t kAlignment = 64;                  // of copies

struct FormatType {
  const char* name;
  DType dtype;
  bool e8m0;
};
constexpr FormatType kTypes[] = {
    {"F32", DType::kF32, false}, {"F64", DType::kF64, false},      {"BF16", DType::kBF16, false},
    {"F16", DType::kF16, false}, {"F8_E4M3", DType::kE4M3, false}, {"I8", DType::kI8, false},
    {"U8", DType::kU8, false},   {"F8_E8M0", DType::kU8, true},    {"BOOL", DType::kU8, false},
    {"I32", DType::kI32, false}, {"I64", DType::kI64, false}};

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Checks one header and turns it into entries. Messages start with `what`.
class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> bytes, const std::string& what)
      : bytes_(bytes), what_(what) {}

  void read(SafetensorsMetadata& metadata, std::vector<SafetensorsEntry>& entries) {
    const Json header = parse_header();
    for (const auto& [name, value] : header.members()) {
      if (name == "__metadata__")
        read_metadata(value, metadata);
      else
        entries.push_back(read_entry(name, value));
    }
    check_layout(entries);
    check_names(entries);
  }
  uint64_t data_begin() const { return 8 + header_bytes_; }

 private:
  [[noreturn]] void fail(const std::string& defect) const {
    throw Error(Code::kDataLoss, fmt::format("{}: {}", what_, defect),
                "the file is damaged or not a safetensors file; copy it again");
  }

  Json parse_header() {
    if (bytes_.size() < 8)
      fail(
          fmt::format("expected a header length of 8 bytes, the file has {} bytes", bytes_.size()));
    std::memcpy(&header_bytes_, bytes_.data(), 8);
    if (header_bytes_ > kMaxHeaderBytes)
      fail(fmt::format("expected a header of at most {} bytes, found the length {}",
                       kMaxHeaderBytes, header_bytes_));
    if (header_bytes_ > bytes_.size() - 8)
      fail(fmt::format("truncated: the header has {} bytes, {} are left in the file", header_bytes_,
                       bytes_.size() - 8));
    data_bytes_ = bytes_.size() - 8 - header_bytes_;
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + 8, header_bytes_);
    Json header = Json::parse(text, what_ + ": header");
    if (!header.is_object()) fail("header: expected a JSON object");
    return header;
  }

  void read_metadata(const Json& value, SafetensorsMetadata& metadata) const {
    if (!value.is_object()) fail("__metadata__: expected an object of strings");
    for (const auto& [key, text] : value.members()) {
      if (!text.is_string()) fail(fmt::format("__metadata__: {}: expected a string", key));
      metadata.emplace_back(key, text.as_string());
    }
  }

  // A whole number from 0 to 2^63 - 1; -1 for anything else.
  static int64_t whole(const Json& value) {
    if (!value.is_number()) return -1;
    try {
      return std::max<int64_t>(value.as_int(), -1);
    } catch (const Error&) {
      return -1;
    }
  }

  SafetensorsEntry read_entry(const std::string& name, const Json& value) const {
    const Json* dtype = value.find("dtype");
    const Json* shape = value.find("shape");
    const Json* offsets = value.find("data_offsets");
    if (!dtype || !dtype->is_string() || !shape || !shape->is_array() || !offsets ||
        !offsets->is_array() || offsets->items().size() != 2)
      fail(fmt::format("tensor {}: expected dtype, shape and data_offsets [begin, end]", name));
    SafetensorsEntry e;
    e.name = name;
    read_dtype(dtype->as_string(), e);
    const int64_t size_bytes = read_shape(*shape, e);
    const int64_t begin = whole(offsets->items()[0]), end = whole(offsets->items()[1]);
    if (begin < 0 || end < begin)
      fail(fmt::format("tensor {}: expected data_offsets 0 <= begin <= end, found {}", name,
                       offsets->dump()));
    e.begin = static_cast<uint64_t>(begin);
    e.end = static_cast<uint64_t>(end);
    if (e.end > data_bytes_)
      fail(fmt::format("truncated: tensor {} ends at byte {} of the data, the file has {}", name,
                       e.end, data_bytes_));
    if (end - begin != size_bytes)
      fail(fmt::format("tensor {}: {} takes {} bytes, data_offsets give {}", name, e.describe(),
                       size_bytes, end - begin));
    return e;
  }

  void read_dtype(const std::string& text, SafetensorsEntry& e) const {
    for (const FormatType& type : kTypes) {
      if (text != type.name) continue;
      e.dtype = type.dtype;
      e.e8m0 = type.e8m0;
      return;
    }
    fail(fmt::format(
        "tensor {}: expected a dtype among F32 F64 BF16 F16 F8_E4M3 F8_E8M0 I8 U8 BOOL I32 "
        "I64, found {}",
        e.name, text));
  }

  // Fills e.shape; returns the size in bytes.
  int64_t read_shape(const Json& shape, SafetensorsEntry& e) const {
    if (shape.items().size() > kMaxRank)
      fail(fmt::format("tensor {}: expected at most {} dimensions, found {}", e.name, kMaxRank,
                       shape.items().size()));
    bool fits = true;
    int64_t size_bytes = dtype_bytes(e.dtype);
    for (const Json& item : shape.items()) {
      e.shape.push_back(whole(item));
      fits = fits && e.shape.back() >= 0 &&
             !__builtin_mul_overflow(size_bytes, std::max<int64_t>(e.shape.back(), 1), &size_bytes);
    }
    if (!fits)
      fail(fmt::format("tensor {}: expected sizes not below 0 whose product fits 63 bits, found {}",
                       e.name, shape.dump()));
    return std::find(e.shape.begin(), e.shape.end(), 0) == e.shape.end() ? size_bytes : 0;
  }

  // Sorts by place and demands that the tensors tile the data exactly.
  void check_layout(std::vector<SafetensorsEntry>& entries) const {
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t at = 0;
    std::string before = "the start of the data";
    for (const SafetensorsEntry& e : entries) {
      if (e.begin != at)
        fail(fmt::format("tensor {} begins at byte {}, but {} ends at {}: {}", e.name, e.begin,
                         before, at, e.begin < at ? "they overlap" : "a gap"));
      at = e.end;
      before = "tensor " + e.name;
    }
    if (at != data_bytes_)
      fail(fmt::format("{} bytes follow the last tensor, expected none", data_bytes_ - at));
  }

  void check_names(const std::vector<SafetensorsEntry>& entries) const {
    std::vector<std::string_view> names;
    for (const SafetensorsEntry& e : entries) names.push_back(e.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail(fmt::format("tensor {} is listed twice", *twice));
  }

  std::span<const std::byte> bytes_;
  const std::string& what_;
  uint64_t header_bytes_ = 0, data_bytes_ = 0;
};

View view_of(const SafetensorsEntry& e, const void* data) {
  View v;
  v.data = const_cast<void*>(data);
  v.dtype = e.dtype;
  v.rank = static_cast<int>(e.shape.size());
  int64_t stride = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.dim[i] = e.shape[static_cast<size_t>(i)];
    v.stride[i] = stride;
    stride *= std::max<int64_t>(v.dim[i], 1);  // the product was checked with the same rule
  }
  return v;
}

std::shared_ptr<std::byte> aligned_copy(const std::byte* from, size_t size_bytes) {
  std::byte* p = static_cast<std::byte*>(
      ::operator new (std::max<size_t>(size_bytes, 1), std::align_val_t{kAlignment}));
  if (size_bytes > 0) std::memcpy(p, from, size_bytes);
  return {p, [](std::byte* q) { ::operator delete (q, std::align_val_t{kAlignment}); }};
}

}  // namespace

const char* safetensors_dtype_name(DType dtype) {
  for (const FormatType& type : kTypes)
    if (type.dtype == dtype) return type.name;
  return "?";
}

std::string SafetensorsEntry::describe() const {
  return fmt::format("{} {}", e8m0 ? "F8_E8M0" : safetensors_dtype_name(dtype), shape_text(shape));
}

struct SafetensorsFile::State {
  std::string what;
  MappedFile map;
  std::shared_ptr<const FileReader> file;
  std::shared_ptr<std::byte> copy;  // in place of the map, for from_bytes
  std::span<const std::byte> bytes;
  uint64_t data_begin = 0;
  SafetensorsMetadata metadata;
  std::vector<SafetensorsEntry> entries;
  std::unordered_map<std::string_view, size_t> index;  // keys live in entries

  void read() {
    HeaderReader reader(bytes, what);
    reader.read(metadata, entries);
    data_begin = reader.data_begin();
    for (size_t i = 0; i < entries.size(); ++i) index.emplace(entries[i].name, i);
  }
};

SafetensorsFile::SafetensorsFile(const std::string& path) {
  auto state = std::make_shared<State>();
  state->what = path;
  state->map = MappedFile(path);
  state->file = std::make_shared<FileReader>(path);
  state->bytes = state->map.bytes();
  state->read();
  state_ = std::move(state);
}

SafetensorsFile SafetensorsFile::from_bytes(std::span<const std::byte> bytes,
                                            const std::string& what) {
  auto state = std::make_shared<State>();
  state->what = what;
  state->copy = aligned_copy(bytes.data(), bytes.size());
  state->bytes = {state->copy.get(), bytes.size()};
  state->read();
  return SafetensorsFile(std::shared_ptr<const State>(std::move(state)));
}

const std::string& SafetensorsFile::path() const { return state_->what; }
const SafetensorsMetadata& SafetensorsFile::metadata() const { return state_->metadata; }
const std::vector<SafetensorsEntry>& SafetensorsFile::entries() const { return state_->entries; }

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = state_->index.find(name);
  return it == state_->index.end() ? nullptr : &state_->entries[it->second];
}

Tensor SafetensorsFile::tensor(const SafetensorsEntry& entry) const {
  const std::byte* data = state_->bytes.data() + state_->data_begin + entry.begin;
  if (reinterpret_cast<uintptr_t>(data) % static_cast<size_t>(dtype_bytes(entry.dtype)) == 0)
    return {view_of(entry, data), state_};
  const auto copy = aligned_copy(data, entry.end - entry.begin);
  return {view_of(entry, copy.get()), copy};
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  if (!entry)
    throw Error(Code::kNotFound,
                fmt::format("{}: no tensor {} among {}", path(), name, entries().size()));
  return tensor(*entry);
}

FileRange SafetensorsFile::range(const SafetensorsEntry& entry) const {
  if (!state_->file) return {};
  return {state_->file, state_->data_begin + entry.begin, entry.end - entry.begin};
}

void SafetensorsFile::release_pages() const { state_->map.release_pages(); }

struct SafetensorsWriter::State {
  AtomicWriter file;
  std::vector<SafetensorsEntry> entries;
  size_t next = 0;
  uint64_t piece_bytes = 0;  // of tensor `next`, written so far
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                                     const SafetensorsMetadata& metadata)
    : state_(new State{AtomicWriter(path), std::move(entries)}) {
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      header += (header.back() == '{' ? "" : ",") + json_quote(key) + ":" + json_quote(value);
    header += "}";
  }
  std::unordered_set<std::string_view> names;
  uint64_t at = 0;
  for (SafetensorsEntry& e : state_->entries) {
    FM_CHECK(names.insert(e.name).second, "tensor {} is declared twice", e.name);
    uint64_t size_bytes = static_cast<uint64_t>(dtype_bytes(e.dtype));
    for (const int64_t n : e.shape) {
      FM_CHECK(n >= 0, "tensor {} has a dimension {}", e.name, n);
      size_bytes *= static_cast<uint64_t>(n);
    }
    e.begin = at;
    e.end = at += size_bytes;
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          header.size() == 1 ? "" : ",", json_quote(e.name),
                          e.e8m0 ? "F8_E8M0" : safetensors_dtype_name(e.dtype),
                          fmt::join(e.shape, ","), e.begin, e.end);
  }
  header += "}";
  header.append((kAlignment - (8 + header.size()) % kAlignment) % kAlignment, ' ');
  const uint64_t header_bytes = header.size();
  state_->file.write(&header_bytes, 8);
  state_->file.write(header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() = default;

namespace {

void write_strided(AtomicWriter& file, const View& v, int axis, int64_t offset) {
  if (axis >= v.rank - 1) {
    file.write(v.at_element(offset), static_cast<size_t>(v.last() * dtype_bytes(v.dtype)));
    return;
  }
  for (int64_t i = 0; i < v.dim[axis]; ++i)
    write_strided(file, v, axis + 1, offset + i * v.stride[axis]);
}

}  // namespace

void SafetensorsWriter::write(const View& view) {
  FM_CHECK(state_->next < state_->entries.size(), "all {} tensors are written",
           state_->entries.size());
  FM_CHECK(state_->piece_bytes == 0, "tensor {} was begun in pieces",
           state_->entries[state_->next].name);
  const SafetensorsEntry& e = state_->entries[state_->next++];
  FM_CHECK(view.dtype == e.dtype, "tensor {} is {}, declared {}", e.name, dtype_name(view.dtype),
           dtype_name(e.dtype));
  const std::vector<int64_t> shape(view.dim, view.dim + view.rank);
  FM_CHECK(shape == e.shape, "tensor {} is {}, declared {}", e.name, shape_text(shape),
           shape_text(e.shape));
  if (view.numel() == 0) return;
  if (view.contiguous())
    state_->file.write(view.data, static_cast<size_t>(view.size_bytes()));
  else
    write_strided(state_->file, view, 0, 0);
}

void SafetensorsWriter::write_piece(const void* data, size_t size_bytes) {
  FM_CHECK(state_->next < state_->entries.size(), "all {} tensors are written",
           state_->entries.size());
  const SafetensorsEntry& e = state_->entries[state_->next];
  state_->piece_bytes += size_bytes;
  FM_CHECK(state_->piece_bytes <= e.end - e.begin, "tensor {}: {} of {} bytes", e.name,
           state_->piece_bytes, e.end - e.begin);
  state_->file.write(data, size_bytes);
  if (state_->piece_bytes < e.end - e.begin) return;
  state_->piece_bytes = 0;
  ++state_->next;
}

void SafetensorsWriter::commit() {
  FM_CHECK(state_->next == state_->entries.size(), "{} of {} tensors are written", state_->next,
           state_->entries.size());
  state_->file.commit();
}

SafetensorsEntry entry_of(const NamedTensor& tensor) {
  const View& v = tensor.tensor.view;
  SafetensorsEntry e;
  e.name = tensor.name;
  e.dtype = v.dtype;
  e.e8m0 = tensor.e8m0;
  e.shape.assign(v.dim, v.dim + v.rank);
  return e;
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return dtype_bytes(a->tensor.view.dtype) > dtype_bytes(b->tensor.view.dtype);
  });
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor* t : order) entries.push_back(entry_of(*t));
  SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const NamedTensor* t : order) writer.write(t->tensor);
  writer.commit();
}

}  // namespace fathom
