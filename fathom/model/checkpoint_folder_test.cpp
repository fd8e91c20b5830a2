#include "fathom/model/checkpoint_folder.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "fathom/base/file.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr const char* kQ = "model.layers.0.self_attn.q_a_proj.weight";

// A folder of its own that goes away with the object.
struct Folder {
  std::string path;
  explicit Folder(const char* name)
      : path("/tmp/fathom_checkpoint_" + std::to_string(::getpid()) + "_" + name) {
    std::filesystem::remove_all(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

// Everything of a golden folder, to be changed and saved again.
struct Copy {
  ModelConfig config;
  std::vector<NamedTensor> tensors;

  explicit Copy(const std::string& golden) {
    const std::string folder = "tests/golden/" + golden;
    const CheckpointFolder c(folder);
    config = c.config();
    for (const std::string& file : list_folder(folder)) {
      if (!file.starts_with("model") || !file.ends_with(".safetensors")) continue;
      const SafetensorsFile shard(folder + "/" + file);
      for (const SafetensorsEntry& e : shard.entries())
        tensors.push_back({e.name, shard.tensor(e), e.e8m0});
    }
  }
  NamedTensor& operator[](const std::string& name) {
    const auto it = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const NamedTensor& t) { return t.name == name; });
    REQUIRE(it != tensors.end());
    return *it;
  }
  void remove(const std::string& name) {
    const size_t i = static_cast<size_t>(&(*this)[name] - tensors.data());
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
  }
  void save(const Folder& to, int64_t max_shard_bytes = kMaxShardBytes) const {
    std::filesystem::remove_all(to.path);
    save_checkpoint_folder(to.path, config, tensors, max_shard_bytes);
  }
};

TensorSpec spec_of(const ModelConfig& config, const std::string& name) {
  for (TensorSpec& s : tensor_specs(config))
    if (s.name == name) return s;
  REQUIRE_MESSAGE(false, name);
  return {};
}

// The message of the error that opening and checking gives; empty when all is well.
std::string defect(const std::string& folder) {
  try {
    CheckpointFolder(folder).check();
  } catch (const InternalError& e) {
    return "internal: " + e.message();
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

void has(const std::string& message, const std::string& text) {
  CHECK_MESSAGE(message.find(text) != std::string::npos, "\"" << text << "\" not in: " << message);
}

bool same_bits(const View& a, const View& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::equal(a.dim, a.dim + a.rank, b.dim) &&
         std::memcmp(a.data, b.data, static_cast<size_t>(a.size_bytes())) == 0;
}

}  // namespace

TEST_CASE("every golden model folder opens and matches its config") {
  for (const char* name :
       {"v32-nano", "v32-tiny", "v3-tiny", "v2lite-tiny", "v2-tiny", "moonlight-tiny", "kimi-tiny",
        "glm-dsa-tiny", "mscale-split-tiny", "v32-tiny-fp8", "v32-tiny-fp8-ue8m0"}) {
    CAPTURE(std::string(name));
    const CheckpointFolder folder(std::string("tests/golden/") + name);
    const CheckpointReport report = folder.check();
    CHECK(report.extra.empty());
    CHECK(report.absent_optional.size() == (std::string(name) == "v32-nano" ? 2 : 0));
    CHECK(report.size_bytes > 0);
  }
}

TEST_CASE("block scales from another shard and partial blocks dequantise to the golden values") {
  for (const char* name : {"v32-tiny-fp8", "v32-tiny-fp8-ue8m0"}) {
    const CheckpointFolder folder(std::string("tests/golden/") + name);
    const SafetensorsFile expected(std::string("tests/golden/") + name + "/expected.safetensors");
    int compared = 0;
    for (const SafetensorsEntry& e : expected.entries()) {
      if (!e.name.starts_with("dequant.")) continue;
      const std::string weight = e.name.substr(8);
      CAPTURE(weight);
      const StoredWeight w = folder.weight(spec_of(folder.config(), weight));
      REQUIRE(w.scale);
      Arena arena;
      const Tensor got = empty(arena, DType::kF32, {e.shape[0], e.shape[1]});
      dequantize(w, got);
      const Tensor want = expected.tensor(e);
      for (int64_t i = 0; i < got.view.numel(); ++i)
        REQUIRE(std::fabs(get_element(got, i) - get_element(want, i)) <=
                1e-6 * std::fabs(get_element(want, i)));
      ++compared;
    }
    CHECK(compared == (std::string(name) == "v32-tiny-fp8" ? 2 : 0));
  }
}

TEST_CASE("save and load give the same bits, in one file or in many shards") {
  for (const char* name : {"v32-nano", "v3-tiny", "v32-tiny-fp8"}) {
    const Copy copy(name);
    for (const int64_t max_bytes : {kMaxShardBytes, int64_t{40000}, int64_t{8000}}) {
      const Folder to("round");
      copy.save(to, max_bytes);
      CHECK(file_exists(to / "model.safetensors.index.json") == (max_bytes != kMaxShardBytes));
      const CheckpointFolder loaded(to.path);
      CHECK(loaded.config() == copy.config);
      CHECK(loaded.check().extra.empty());
      for (const NamedTensor& t : copy.tensors)
        REQUIRE_MESSAGE(same_bits(loaded.tensor(t.name), t.tensor), t.name);
    }
  }
}

TEST_CASE("saving refuses a folder that holds a checkpoint") {
  const Copy copy("v2lite-tiny");
  const Folder to("used");
  copy.save(to);
  CHECK_THROWS_AS(save_checkpoint_folder(to.path, copy.config, copy.tensors), Error);
  ::unlink((to / "config.json").c_str());  // as a save that was cut off leaves it
  has(defect(to.path), "expected config.json, found none");
  CHECK_THROWS_AS(save_checkpoint_folder(to.path, copy.config, copy.tensors), Error);
}

TEST_CASE("each defect of a checkpoint folder is named") {
  const Folder to("defect");
  has(defect(to.path), "expected a folder");
  SUBCASE("no weights") {
    Copy("v2lite-tiny").save(to);
    ::unlink((to / "model.safetensors").c_str());
    has(defect(to.path), "expected model.safetensors or model.safetensors.index.json");
  }
  SUBCASE("missing shard") {
    Copy("v2lite-tiny").save(to, 40000);
    ::unlink((to / "model-00002-of-00004.safetensors").c_str());
    has(defect(to.path), "shard model-00002-of-00004.safetensors with");
  }
  SUBCASE("truncated shard") {
    Copy("v2lite-tiny").save(to, 40000);
    const std::string shard = to / "model-00003-of-00004.safetensors";
    const std::string bytes = read_file(shard);
    write_file_atomic(shard, std::string_view(bytes).substr(0, bytes.size() - 1));
    has(defect(to.path), "model-00003-of-00004.safetensors: truncated: tensor");
  }
  SUBCASE("indexed tensor that its shard lacks") {
    Copy("v2lite-tiny").save(to, 40000);
    const std::string path = to / "model.safetensors.index.json";
    std::string text = read_file(path);
    text.replace(text.find("model.norm.weight"), 17, "model.norn.weight");
    write_file_atomic(path, text);
    has(defect(to.path), "tensor model.norn.weight should be in model-00004-of-00004.safetensors");
  }
  SUBCASE("tensor in two shards") {
    Copy copy("v2lite-tiny");
    copy.save(to, 40000);
    const std::string second = to / "model-00002-of-00004.safetensors";
    const SafetensorsFile f(second);
    std::vector<NamedTensor> tensors;
    for (const SafetensorsEntry& e : f.entries()) tensors.push_back({e.name, f.tensor(e)});
    tensors.push_back(copy["model.embed_tokens.weight"]);
    write_safetensors(second, tensors);
    has(defect(to.path), "tensor model.embed_tokens.weight is both in");
  }
  SUBCASE("index that leaves the folder") {
    Copy("v2lite-tiny").save(to);
    write_file_atomic(to / "model.safetensors.index.json",
                      R"({"weight_map":{"a":"../model.safetensors"}})");
    has(defect(to.path), "expected a file name in this folder");
    write_file_atomic(to / "model.safetensors.index.json", "{}");
    has(defect(to.path), "weight_map");
  }
  SUBCASE("missing tensor") {
    Copy copy("v2lite-tiny");
    copy.remove("model.norm.weight");
    copy.save(to);
    has(defect(to.path), "tensor model.norm.weight [32] is missing");
  }
  SUBCASE("wrong sizes") {
    Copy copy("v2lite-tiny");
    copy.config.hidden_size = 16;
    copy.save(to);
    has(defect(to.path),
        "tensor model.embed_tokens.weight: expected [96, 16], found BF16 [96, 32]");
  }
  SUBCASE("integer weight") {
    Copy copy("v32-nano");
    View& v = copy["model.norm.weight"].tensor.view;
    v.dtype = DType::kI32;
    copy.save(to);
    has(defect(to.path), "tensor model.norm.weight: expected BF16, F16, F32, found I32 [32]");
  }
  SUBCASE("FP8 without scale") {
    Copy copy("v32-tiny-fp8");
    copy.remove(scale_name(kQ));
    copy.save(to);
    has(defect(to.path), std::string(kQ) + " is F8_E4M3 and needs " + scale_name(kQ));
  }
  SUBCASE("scale of the wrong sizes") {
    Copy copy("v32-tiny-fp8");
    View& v = copy[scale_name("model.layers.0.self_attn.kv_a_proj_with_mqa.weight")].tensor.view;
    REQUIRE(v.dim[0] == 2);
    v.dim[0] = 1;
    copy.save(to);
    has(defect(to.path), "expected [2, 1] or [144, 1], found F32 [1, 1]");
  }
  SUBCASE("scale that is not finite") {
    Copy copy("v32-tiny-fp8");
    Arena arena;
    Tensor bad = zeros(arena, DType::kF32, {1, 1});
    *bad.as<float>() = INFINITY;
    copy[scale_name(kQ)].tensor = bad;
    copy.save(to);
    has(defect(to.path), "expected finite scales, found inf");
  }
  SUBCASE("scale beside a weight that is not FP8") {
    Copy copy("v32-tiny");
    copy.tensors.push_back({scale_name(kQ), copy["model.norm.weight"].tensor});
    copy.save(to);
    has(defect(to.path), "scales belong to F8_E4M3");
  }
}

TEST_CASE("E8M0 and per-row scales are accepted") {
  Copy copy("v32-tiny-fp8-ue8m0");
  const CheckpointFolder original("tests/golden/v32-tiny-fp8-ue8m0");
  const TensorSpec spec = spec_of(copy.config, kQ);
  const StoredWeight before = original.weight(spec);
  Arena arena;
  Tensor want = empty(arena, DType::kF32, {spec.shape[0], spec.shape[1]});
  Tensor got = empty(arena, DType::kF32, {spec.shape[0], spec.shape[1]});
  dequantize(before, want);
  const float s = *before.scale.as<float>();

  Tensor byte = empty(arena, DType::kU8, {1, 1});
  *byte.as<uint8_t>() = static_cast<uint8_t>(std::ilogb(s) + 127);
  copy[scale_name(kQ)].tensor = byte;
  copy[scale_name(kQ)].e8m0 = true;
  const Folder to("scales");
  copy.save(to);
  dequantize(CheckpointFolder(to.path).weight(spec), got);
  CHECK(same_bits(got, want));
  *byte.as<uint8_t>() = 255;
  copy.save(to);
  has(defect(to.path), "expected finite scales");

  Tensor rows = empty(arena, DType::kBF16, {spec.shape[0], 1});
  for (int64_t i = 0; i < spec.shape[0]; ++i)
    rows.as<bf16>()[i] = to_bf16(s * static_cast<float>(i));
  copy[scale_name(kQ)] = {scale_name(kQ), rows};
  copy.save(to);
  const StoredWeight w = CheckpointFolder(to.path).weight(spec);
  CHECK(w.block_rows == 1);
  dequantize(w, got);
  for (int64_t i : {0, 1, 3, 64})
    CHECK(get_element(got, i * spec.shape[1] + 5) ==
          get_element(want, i * spec.shape[1] + 5) * static_cast<double>(i));
}

TEST_CASE("extra tensors are reported, rotary tables are not") {
  Copy copy("v2lite-tiny");
  const Tensor norm = copy["model.norm.weight"].tensor;
  copy.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", norm});
  copy.tensors.push_back({"visual.proj.weight", norm});
  const Folder to("extra");
  copy.save(to);
  CHECK(CheckpointFolder(to.path).check().extra == std::vector<std::string>{"visual.proj.weight"});
}

TEST_CASE("a checkpoint whose multi-token prediction layer was dropped loads without it") {
  Copy copy("glm-dsa-tiny");
  std::erase_if(copy.tensors,
                [](const NamedTensor& t) { return t.name.starts_with("model.layers.5."); });
  const Folder to("no_mtp");
  copy.save(to);
  const CheckpointFolder loaded(to.path);
  CHECK(loaded.config().num_nextn_predict_layers == 0);
  CHECK(!loaded.config().has_indexer(3));
  CHECK(loaded.check().extra.empty());
}

TEST_CASE("a checkpoint under the demo's names is found under the published ones") {
  Copy copy("v32-tiny-fp8");
  const Copy original = copy;
  for (NamedTensor& t : copy.tensors) t.name = demo_name(t.name);
  const Folder to("demo");
  copy.save(to);
  const CheckpointFolder loaded(to.path);
  CHECK(loaded.check().extra.empty());
  for (const NamedTensor& t : original.tensors)
    CHECK_MESSAGE(same_bits(loaded.tensor(t.name), t.tensor), t.name);
}

TEST_CASE(
    "hundreds of damaged indexes and configs give an error or a valid folder, never a crash") {
  const Folder to("damage");
  Copy("glm-dsa-tiny").save(to, 200000);
  Rng rng(5, "damage");
  int refused = 0;
  for (int round = 0; round < 600; ++round) {
    const std::string path = to / (round % 2 ? "config.json" : "model.safetensors.index.json");
    const std::string whole = read_file(path);
    std::string text = whole;
    for (uint64_t edits = 1 + rng.below(3); edits > 0; --edits) {
      const size_t at = static_cast<size_t>(rng.below(text.size()));
      switch (rng.below(4)) {
        case 0:
          text[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          text[at] = static_cast<char>('0' + rng.below(10));
          break;
        case 2:
          text.erase(at, static_cast<size_t>(rng.below(8)));
          break;
        default:
          text.insert(at, rng.below(2) ? "0" : "-");
      }
    }
    std::ofstream(path, std::ios::binary) << text;  // no fsync: there are many
    const std::string m = defect(to.path);
    REQUIRE_MESSAGE(!m.starts_with("internal"), m);
    refused += !m.empty();
    std::ofstream(path, std::ios::binary) << whole;
  }
  CHECK(refused > 300);
  CHECK(refused < 600);
  CHECK(defect(to.path).empty());
}

}  // namespace fathom
