#include "fathom/model/verify_checkpoint.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "fathom/base/file.h"
#include "fathom/base/sha256.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_folder.h"

namespace fathom {
namespace {

constexpr const char* kGolden = "tests/golden/v32-tiny-fp8";

// A copy of a golden folder to damage.
struct Copy {
  std::string path;
  explicit Copy(const char* name)
      : path("/tmp/fathom_verify_" + std::to_string(::getpid()) + "_" + name) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    for (const std::string& file : list_folder(kGolden))
      if (file.starts_with("model") || file == "config.json")
        std::filesystem::copy(std::string(kGolden) + "/" + file, path);
  }
  ~Copy() { std::filesystem::remove_all(path); }

  // Overwrites bytes of one tensor's data, at an element.
  void patch(const std::string& tensor, int64_t element, const std::string& bytes) const {
    for (const std::string& name : list_folder(path)) {
      if (!name.ends_with(".safetensors")) continue;
      const SafetensorsFile file(path + "/" + name);
      const SafetensorsEntry* e = file.find(tensor);
      if (!e) continue;
      const uint64_t data = file_size(path + "/" + name) - file.entries().back().end;
      std::fstream out(path + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
      out.seekp(static_cast<std::streamoff>(data + e->begin) + element * dtype_bytes(e->dtype));
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      return;
    }
    REQUIRE_MESSAGE(false, tensor);
  }
};

VerifyReport verify(const std::string& folder, bool checksums = false) {
  ThreadPool pool(2);
  return verify_checkpoint(folder, checksums, pool, nullptr);
}

void has(const std::vector<std::string>& lines, const std::string& text) {
  const bool found = std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
    return line.find(text) != std::string::npos;
  });
  std::string all;
  for (const std::string& line : lines) all += "\n  " + line;
  CHECK_MESSAGE(found, "\"" << text << "\" not in:" << all);
}

}  // namespace

TEST_CASE("golden model folders have no defects, and their checksums are those of the files") {
  for (const char* name : {"v32-tiny-fp8", "v32-tiny-fp8-ue8m0", "v3-tiny", "v32-nano"}) {
    CAPTURE(std::string(name));
    const std::string folder = std::string("tests/golden/") + name;
    const VerifyReport r = verify(folder, true);
    CHECK(r.defects.empty());
    CHECK(r.num_elements > 1000);
    REQUIRE(!r.files.empty());
    for (const VerifyReport::File& f : r.files)
      CHECK(f.sha256 == sha256_hex(read_file(folder + "/" + f.name)));
  }
}

TEST_CASE("every defect is named in one run: NaN codes of each type, scales, missing files") {
  const std::string q = "model.layers.1.self_attn.q_a_proj.weight";
  const Copy copy("values");
  copy.patch(q, 300, "\x7f");                                       // e4m3 NaN
  copy.patch("model.layers.1.mlp.gate.weight", 5, "\x80\x7f");      // bf16 infinity
  copy.patch("model.layers.1.mlp.gate.e_score_correction_bias", 2,  // f32 NaN
             std::string("\x00\x00\xc0\xff", 4));
  copy.patch("model.layers.1.self_attn.o_proj.weight_scale_inv", 0, std::string(4, '\0'));
  const VerifyReport r = verify(copy.path);
  CHECK(r.defects.size() == 4);
  has(r.defects, q + ": expected finite numbers, found nan at [2, 44]");
  has(r.defects, "mlp.gate.weight: expected finite numbers, found inf at [0, 5]");
  has(r.defects, "e_score_correction_bias: expected finite numbers");
  has(r.defects, "o_proj.weight_scale_inv: expected positive, finite scales, found 0 at [0, 0]");
}

TEST_CASE("a missing shard, a cut shard and a broken config are separate defects") {
  const Copy copy("files");
  std::filesystem::remove(copy.path + "/model-00001-of-000002.safetensors");
  std::filesystem::resize_file(copy.path + "/model-00002-of-000002.safetensors", 5000);
  write_file_atomic(copy.path + "/config.json", "{\"model_type\": 3}");
  const VerifyReport r = verify(copy.path);
  CHECK(r.defects.size() == 3);
  has(r.defects, "config.json");
  has(r.defects, "model-00001-of-000002.safetensors with ");
  has(r.defects, "model-00002-of-000002.safetensors");
}

TEST_CASE("a config of another model and tensors that it has no use for are named") {
  const Copy copy("config");
  std::string text = read_file(copy.path + "/config.json");
  const std::string field = "\"index_n_heads\": ";
  const size_t at = text.find(field);
  REQUIRE(at != text.npos);
  text.insert(at + field.size(), "1");
  write_file_atomic(copy.path + "/config.json", text);
  const VerifyReport r = verify(copy.path);
  CHECK(r.defects.size() == 4);  // two tensors in each of two layers
  has(r.defects, "indexer.wq_b.weight: expected [");
  std::filesystem::copy(copy.path + "/model-00001-of-000002.safetensors",
                        copy.path + "/other.safetensors");
  has(verify(copy.path).remarks, "other.safetensors belongs to nothing");
}

TEST_CASE("checksums are compared both ways") {
  const VerifyReport r = verify(kGolden, true);
  std::string lines = "a title\n";
  for (const VerifyReport::File& f : r.files) lines += f.sha256 + "  " + f.name + "\n";
  CHECK(compare_checksums(r, lines).empty());
  lines[8] = lines[8] == '0' ? '1' : '0';
  lines += std::string(64, 'a') + "  gone.safetensors\n";
  const std::vector<std::string> out = compare_checksums(r, lines);
  CHECK(out.size() == 2);
  has(out, "expected SHA-256 ");
  has(out, "gone.safetensors: missing");
  CHECK_THROWS_AS(compare_checksums(r, "nothing\n"), Error);
}

}  // namespace fathom
