#include "fathom/model/synthetic.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "fathom/base/file.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_folder.h"

namespace fathom {
namespace {

struct Folder {
  std::string path;
  explicit Folder(const char* name)
      : path("/tmp/fathom_synthetic_" + std::to_string(::getpid()) + "_" + name) {
    std::filesystem::remove_all(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

// Wide enough for several blocks, odd enough for partial ones; with everything V3.2 has.
ModelConfig tiny() {
  ModelConfig c = read_config("tests/golden/v32-tiny/config.json");
  c.initializer_range = 0.02;
  c.intermediate_size = 200;
  c.num_nextn_predict_layers = 1;
  c.quantization_config.reset();
  return c;
}

void write(const Folder& folder, const ModelConfig& c, SyntheticForm form, uint64_t seed,
           int threads = 2, int64_t max_shard_bytes = 1 << 18) {
  ThreadPool pool(threads);
  write_synthetic_checkpoint(folder.path, c, form, seed, max_shard_bytes, pool, nullptr);
}

double spread(const View& v) {
  double sum = 0;
  for (int64_t i = 0; i < v.numel(); ++i) sum += get_element(v, i) * get_element(v, i);
  return std::sqrt(sum / static_cast<double>(v.numel()));
}

}  // namespace

TEST_CASE("a synthetic checkpoint is complete in every form, and its weights have their spread") {
  for (const SyntheticForm form :
       {SyntheticForm::kF32, SyntheticForm::kBF16, SyntheticForm::kFp8}) {
    CAPTURE(std::string(synthetic_form_name(form)));
    const Folder folder(synthetic_form_name(form));
    write(folder, tiny(), form, 7);
    const CheckpointFolder files(folder.path);
    const CheckpointReport report = files.check();
    CHECK(report.extra.empty());
    CHECK(report.absent_optional.empty());
    CHECK(files.config().quantization_config.has_value() == (form == SyntheticForm::kFp8));
    for (const TensorSpec& spec : tensor_specs(files.config())) {
      CAPTURE(spec.name);
      const StoredWeight w = files.weight(spec);
      if (form == SyntheticForm::kFp8)
        CHECK((w.tensor.view.dtype == DType::kE4M3) == spec.quantizable);
      if (spec.shape.size() != 2) continue;
      Arena arena;
      const Tensor values = empty(arena, DType::kF32, {spec.shape[0], spec.shape[1]});
      dequantize(w, values);
      CHECK(spread(values) == doctest::Approx(0.02).epsilon(0.25));
    }
  }
}

TEST_CASE("published element types: scales and routing bias f32, the rest of an fp8 model bf16") {
  const Folder folder("types");
  ModelConfig c = tiny();
  c.quantization_config.emplace().scale_ue8m0 = true;
  write(folder, c, SyntheticForm::kFp8, 1);
  const CheckpointFolder files(folder.path);
  const auto describe = [&](const std::string& name) {
    const SafetensorsEntry* e = files.find("model." + name);
    REQUIRE_MESSAGE(e, name);
    return std::string(safetensors_dtype_name(e->dtype));
  };
  CHECK(describe("embed_tokens.weight") == "BF16");
  CHECK(describe("layers.1.self_attn.q_a_proj.weight") == "F8_E4M3");
  CHECK(describe("layers.1.self_attn.q_a_proj.weight_scale_inv") == "F32");
  CHECK(describe("layers.1.self_attn.indexer.k_norm.bias") == "F32");
  CHECK(describe("layers.1.self_attn.indexer.weights_proj.weight") == "BF16");
  CHECK(describe("layers.1.mlp.gate.weight") == "BF16");
  CHECK(describe("layers.1.mlp.gate.e_score_correction_bias") == "F32");
  const Tensor scale = files.tensor("model.layers.0.mlp.down_proj.weight_scale_inv");
  for (int64_t i = 0; i < scale.view.numel(); ++i) {
    int exponent = 0;
    CHECK(std::frexp(get_element(scale, i), &exponent) == 0.5);  // a power of two
  }
}

TEST_CASE("the files are the same with any number of threads and other with another seed") {
  const Folder one("one"), two("two"), other("other");
  write(one, tiny(), SyntheticForm::kFp8, 3, 1);
  write(two, tiny(), SyntheticForm::kFp8, 3, 2);
  write(other, tiny(), SyntheticForm::kFp8, 4, 2);
  int shards = 0;
  for (const std::string& name : list_folder(one.path)) {
    CAPTURE(name);
    const std::string bytes = read_file(one.path + "/" + name);
    CHECK(bytes == read_file(two.path + "/" + name));
    if (!name.ends_with(".safetensors")) continue;
    CHECK(bytes != read_file(other.path + "/" + name));
    ++shards;
  }
  CHECK(shards > 2);
}

TEST_CASE("the source in memory gives what the files hold") {
  const Folder folder("memory");
  const ModelConfig c = tiny();
  write(folder, c, SyntheticForm::kFp8, 5);
  const CheckpointFolder files(folder.path);
  Arena arena;
  ThreadPool pool(2);
  const auto source = synthetic_source(arena, pool, c, SyntheticForm::kFp8, 5);
  for (const TensorSpec& spec : tensor_specs(files.config())) {
    CAPTURE(spec.name);
    Tensor scale;
    const Tensor got = source->find(spec.name, spec.shape, &scale);
    const StoredWeight want = files.weight(spec);
    REQUIRE(got.view.dtype == want.tensor.view.dtype);
    const auto same = [](const View& a, const View& b) {
      return a.size_bytes() == b.size_bytes() &&
             std::memcmp(a.data, b.data, static_cast<size_t>(a.size_bytes())) == 0;
    };
    CHECK(same(got, want.tensor));
    REQUIRE(static_cast<bool>(scale) == static_cast<bool>(want.scale));
    if (scale) CHECK(same(scale, want.scale));
  }
}

TEST_CASE("copies in multi-token prediction layers are copies") {
  const Folder folder("copies");
  const ModelConfig c = tiny();
  write(folder, c, SyntheticForm::kBF16, 6);
  const CheckpointFolder files(folder.path);
  const std::string mtp = "model.layers." + std::to_string(c.num_hidden_layers);
  const Tensor a = files.tensor("lm_head.weight"),
               b = files.tensor(mtp + ".shared_head.head.weight");
  CHECK(std::memcmp(a.view.data, b.view.data, static_cast<size_t>(a.view.size_bytes())) == 0);
}

TEST_CASE("pieces of a tensor are those of the whole") {
  const ModelConfig c = tiny();
  const SyntheticWeights weights(c, SyntheticForm::kBF16, 1);
  const std::string name = "model.embed_tokens.weight";
  std::vector<uint16_t> whole(1001), piece(40);
  weights.fill(name, 0, 1001, whole.data());
  weights.fill(name, 968, 33, piece.data());
  CHECK(std::equal(piece.begin(), piece.begin() + 33, whole.begin() + 968));
}

}  // namespace fathom
