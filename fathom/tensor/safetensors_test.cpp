#include "fathom/tensor/safetensors.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "fathom/base/file.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

std::string file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

SafetensorsFile parse(const std::string& bytes) {
  return SafetensorsFile::from_bytes(std::as_bytes(std::span(bytes)), "x.safetensors");
}

// The error that reading gives; empty when it reads.
std::string defect(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const InternalError& e) {
    return "internal: " + e.message();
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

std::string temporary(const char* name) {
  return "/tmp/fathom_safetensors_" + std::to_string(::getpid()) + "_" + name;
}

}  // namespace

TEST_CASE("a safetensors header with padding, metadata and any tensor order is read") {
  const SafetensorsFile f = parse(file_bytes(
      R"({"b":{"dtype":"U8","shape":[2,3],"data_offsets":[8,14]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("s":{"dtype":"F8_E8M0","shape":[],"data_offsets":[14,15]},)"
      R"("none":{"dtype":"I64","shape":[0,4],"data_offsets":[15,15]}}   )",
      15));
  REQUIRE(f.entries().size() == 4);
  CHECK(f.entries()[0].name == "a");
  CHECK(f.metadata() == SafetensorsMetadata{{"format", "pt"}});
  const Tensor b = f.tensor("b");
  CHECK(b.view.rank == 2);
  CHECK(b.view.dim[1] == 3);
  CHECK(b.as<uint8_t>()[5] == 13);
  CHECK(f.find("s")->e8m0);
  CHECK(f.tensor("s").view.numel() == 1);
  CHECK(f.tensor("none").view.numel() == 0);
  CHECK(f.find("c") == nullptr);
  CHECK_THROWS_AS(f.tensor("c"), Error);
}

TEST_CASE("each defect of a safetensors file is named") {
  const auto has = [](const std::string& bytes, const char* text) {
    const std::string m = defect(bytes);
    CHECK_MESSAGE((m.starts_with("x.safetensors: ") && m.find(text) != std::string::npos),
                  text << " not in: " << m);
  };
  const auto one = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string(R"({"t":{"dtype":")") + dtype + R"(","shape":)" + shape +
           R"(,"data_offsets":)" + offsets + "}}";
  };
  CHECK(defect(file_bytes(one("F32", "[2]", "[0,8]"), 8)).empty());
  has("abc", "header length");
  has(std::string(8, '\xff'), "header of at most");
  has(file_bytes("{}", 0).substr(0, 9), "truncated: the header has 2 bytes, 1 are left");
  has(file_bytes("{", 0), "not valid JSON");
  has(file_bytes("[]", 0), "expected a JSON object");
  has(file_bytes(R"({"__metadata__":{"a":1}})", 0), "__metadata__: a: expected a string");
  has(file_bytes(R"({"t":3})", 0), "tensor t: expected dtype, shape and data_offsets");
  has(file_bytes(one("F99", "[2]", "[0,8]"), 8), "tensor t: expected a dtype among");
  has(file_bytes(one("F32", "[1,1,1,1,2]", "[0,8]"), 8), "at most 4 dimensions, found 5");
  has(file_bytes(one("F32", "[-2]", "[0,8]"), 8), "not below 0");
  has(file_bytes(one("F32", "[2.5]", "[0,8]"), 8), "not below 0");
  has(file_bytes(one("F32", "[4294967296,4294967296]", "[0,8]"), 8), "63 bits");
  has(file_bytes(one("F32", "[0,4294967296,4294967296]", "[0,0]"), 0), "63 bits");
  has(file_bytes(one("F32", "[99999999999999999999]", "[0,8]"), 8), "not below 0");
  has(file_bytes(one("F32", "[2]", "[0,7]"), 7), "takes 8 bytes, data_offsets give 7");
  has(file_bytes(one("F32", "[2]", "[8,0]"), 8), "0 <= begin <= end");
  has(file_bytes(one("F32", "[2]", "[-8,0]"), 8), "0 <= begin <= end");
  has(file_bytes(one("F32", "[2]", "[0,8]"), 7), "truncated: tensor t ends at byte 8");
  has(file_bytes(one("F32", "[2]", "[0,8]"), 9), "1 bytes follow the last tensor");
  has(file_bytes(one("F32", "[2]", "[4,12]"), 12), "a gap");
  const std::string a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
  has(file_bytes(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7), "overlap");
  has(file_bytes(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", 9), "a gap");
  has(file_bytes(a + R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8),
      "tensor a is listed twice");
}

TEST_CASE("data that the file does not align is copied to aligned memory") {
  const SafetensorsFile f =
      parse(file_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})",
                       9));
  const Tensor b = f.tensor("b");
  CHECK(reinterpret_cast<uintptr_t>(b.view.data) % 8 == 0);
  uint64_t bits = 0;
  std::memcpy(&bits, b.as<double>(), 8);
  CHECK(bits == 0x0807060504030201u);
}

TEST_CASE("what is written is read back bit for bit, and the file is the same every time") {
  Arena arena;
  std::vector<NamedTensor> tensors;
  Rng rng(7, "safetensors");
  int serial = 0;
  for (const DType t : {DType::kU8, DType::kF32, DType::kE4M3, DType::kBF16, DType::kF64,
                        DType::kI64, DType::kF16, DType::kI32, DType::kI8}) {
    Tensor x = empty(arena, t, {3, 5});
    for (int64_t i = 0; i < x.view.size_bytes(); ++i)
      static_cast<uint8_t*>(x.view.data)[i] = static_cast<uint8_t>(rng.next());
    tensors.push_back({"name \"" + std::to_string(serial++) + "\" \u00e9", x});
  }
  Tensor part = tensors[1].tensor;
  part.view = slice(part.view, 1, 1, 3);  // strided
  tensors.push_back({"part", part});
  tensors.push_back({"scalar", empty(arena, DType::kU8, {}), true});
  tensors.push_back({"none", empty(arena, DType::kF32, {0, 7})});
  *tensors[10].tensor.as<uint8_t>() = 127;
  const std::string path = temporary("round"), again = temporary("again");
  write_safetensors(path, tensors, {{"format", "pt"}, {"a", "b"}});
  write_safetensors(again, tensors, {{"format", "pt"}, {"a", "b"}});
  CHECK(read_file(path) == read_file(again));
  const SafetensorsFile f(path);
  CHECK(f.metadata().size() == 2);
  CHECK(f.entries().size() == tensors.size());
  for (const NamedTensor& want : tensors) {
    const SafetensorsEntry* e = f.find(want.name);
    REQUIRE(e);
    CHECK(e->describe() == entry_of(want).describe());
    const Tensor got = f.tensor(*e);
    Tensor flat = empty(arena, want.tensor.view.dtype, {3, 3});
    const View w = want.name == "part" ? flat.view : want.tensor.view;
    if (want.name == "part") copy(want.tensor, flat);
    CHECK(std::memcmp(got.view.data, w.data, static_cast<size_t>(w.size_bytes())) == 0);
  }
  ::unlink(path.c_str());
  ::unlink(again.c_str());
}

TEST_CASE("a writer without commit leaves nothing behind") {
  const std::string path = temporary("uncommitted");
  {
    SafetensorsEntry e;
    e.name = "t";
    e.dtype = DType::kU8;
    e.shape = {4};
    SafetensorsWriter writer(path, {e});
    const uint8_t data[5] = {};
    CHECK_THROWS_AS(writer.commit(), InternalError);
    CHECK_THROWS_AS(writer.write(make_view(data, DType::kU8, {5})), InternalError);
  }
  CHECK(!file_exists(path));
}

TEST_CASE("a tensor keeps the map of its file alive") {
  Tensor t;
  {
    const SafetensorsFile f("tests/golden/v32-nano/model.safetensors");
    t = f.tensor("model.norm.weight");
  }
  CHECK(t.view.numel() == 32);
  CHECK(get_element(t, 31) != 0);
}

TEST_CASE("thousands of damaged files give an error or a valid file, never a crash") {
  const std::string whole = read_file("tests/golden/v2lite-tiny/model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  // The header alone decides; two tensors' worth of it keeps this fast.
  const std::string small = file_bytes(
      R"({"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("y":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})",
      24);
  REQUIRE(defect(whole).empty());
  REQUIRE(defect(small).empty());
  Rng rng(11, "damage");
  int refused = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string bytes = round % 60 == 0 ? whole : small;
    const size_t area = bytes == whole ? 8 + header : bytes.size();
    for (uint64_t edits = 1 + rng.next() % 3; edits > 0; --edits) {
      const size_t at = rng.next() % std::min(area, bytes.size());
      switch (rng.next() % 5) {
        case 0:
          bytes[at] = static_cast<char>(rng.next());
          break;
        case 1:
          bytes[at] = "0123456789-[]{},:\".e"[rng.next() % 20];
          break;
        case 2:
          bytes.resize(std::max<size_t>(at, 1));
          break;
        case 3:
          bytes.insert(at, 1, static_cast<char>('0' + rng.next() % 10));
          break;
        default:
          bytes.erase(at, 1 + rng.next() % 4);
      }
      if (bytes.empty()) bytes = "{";
    }
    const std::string m = defect(bytes);
    REQUIRE_MESSAGE(!m.starts_with("internal"), m);
    refused += !m.empty();
    if (!m.empty()) continue;
    const SafetensorsFile f = parse(bytes);
    for (const SafetensorsEntry& e : f.entries()) {
      const Tensor t = f.tensor(e);
      if (t.view.numel() > 0) get_element(t, t.view.numel() - 1);
    }
  }
  CHECK(refused > 3000);
  CHECK(refused < 6000);
}

}  // namespace fathom
