// A model from packed weights is the model that they were made of, bit for bit.
#include "fathom/model/packed_weights.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_source.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

// A copy of a golden folder that a test may write to.
struct Folder {
  std::string path;
  explicit Folder(const std::string& golden) {
    std::string pattern = (fs::temp_directory_path() / "fathom_packed_XXXXXX").string();
    path = mkdtemp(pattern.data());
    for (const std::string& file : list_folder(golden))
      if (file == "config.json" || file.find(".safetensors") != std::string::npos)
        fs::copy(golden + "/" + file, path + "/" + file);
  }
  ~Folder() { fs::remove_all(path); }
  std::string packed(const char* quant) const { return path + "/packed-" + quant + ".fmpack"; }
};

struct Machine {
  ThreadPool pool{2};
  Arena arena;
  Ctx ctx{.kernels = cpu_simd(), .pool = pool, .arena = arena};
};

std::vector<std::byte> hidden_states(const Ctx& shared, const Model& model, AttnForm form) {
  Ctx ctx = shared;
  Step step;
  step.form = form;
  if (!model.config.has_dsa()) step.selection = KeySelection::kDense;
  step.add_sequence({1, 5, 17, 29, 3, 44, 8, 2, 60, 31});
  const Value hidden_TD = forward(ctx, model, step).hidden_TD;
  const Value logits_TW = logits(ctx, model, hidden_TD);
  std::vector<std::byte> out;
  for (const Value* v : {&hidden_TD, &logits_TW}) {
    const auto* data = static_cast<const std::byte*>(v->view().data);
    out.insert(out.end(), data, data + v->view().size_bytes());
  }
  return out;
}

TEST_CASE("packed weights give the same bits, of every type") {
  for (const char* family : {"v32-tiny", "v32-tiny-fp8", "moonlight-tiny", "v3-tiny"})
    for (const Quant quant : {Quant::kNone, Quant::kQ8, Quant::kQ4}) {
      CAPTURE(family);
      CAPTURE(quant_name(quant));
      const Folder folder(std::string("tests/golden/") + family);
      const LoadOptions options{.quant = quant};
      Machine m;
      const Model made = load_model(m.ctx, folder.path, WeightUse::kServe, options);
      save_packed_weights(m.ctx, folder.path, made, options);
      REQUIRE(file_exists(folder.packed(quant_name(quant))));
      Machine again;
      const Model mapped = load_model(again.ctx, folder.path, WeightUse::kServe, options);
      CHECK(mapped.weights.packing.empty());  // nothing was packed
      CHECK(again.arena.stats().in_use_bytes < m.arena.stats().in_use_bytes / 4);
      CHECK(hidden_states(again.ctx, mapped, AttnForm::kAbsorbed) ==
            hidden_states(m.ctx, made, AttnForm::kAbsorbed));
      if (quant == Quant::kNone)
        CHECK(hidden_states(again.ctx, mapped, AttnForm::kNaive) ==
              hidden_states(m.ctx, made, AttnForm::kNaive));
    }
}

TEST_CASE("packed weights of other files, kernels or options are not used") {
  const Folder folder("tests/golden/v32-tiny");
  Machine m;
  const auto is_mapped = [&](const LoadOptions& o) {
    return load_model(m.ctx, folder.path, WeightUse::kServe, o).weights.packing.empty();
  };
  save_packed_weights(m.ctx, folder.path, load_model(m.ctx, folder.path, WeightUse::kServe), {});
  CHECK(is_mapped({}));
  CHECK(!is_mapped({.quant = Quant::kQ8}));
  CHECK(!is_mapped({.memory_bytes = int64_t{1} << 30}));
  CHECK(!load_model(m.ctx, folder.path, WeightUse::kTrain).weights.packing.empty());
  Ctx reference{.kernels = cpu_ref(), .pool = m.pool, .arena = m.arena};
  CHECK(!load_model(reference, folder.path, WeightUse::kServe).weights.packing.empty());

  const std::string weights = folder.path + "/model.safetensors";
  const std::string bytes = read_file(weights);
  write_file_atomic(weights, bytes);
  CHECK(!is_mapped({}));
  save_packed_weights(m.ctx, folder.path, load_model(m.ctx, folder.path, WeightUse::kServe), {});
  CHECK(is_mapped({}));
}

TEST_CASE("a damaged file of packed weights is an error that names it") {
  const Folder folder("tests/golden/v32-tiny");
  Machine m;
  save_packed_weights(m.ctx, folder.path, load_model(m.ctx, folder.path, WeightUse::kServe), {});
  const std::string file = folder.packed("none");
  const std::string good = read_file(file);
  const auto check = [&](const std::string& bytes) {
    write_file_atomic(file, bytes);
    try {
      load_model(m.ctx, folder.path, WeightUse::kServe);
      FAIL("it was loaded");
    } catch (const InternalError&) {
      throw;
    } catch (const Error& e) {
      CHECK(e.message().find(file) != std::string::npos);
    }
  };
  check("");
  check(good.substr(0, good.size() - 64));
  check(good + std::string(64, 'x'));
  std::string bytes = good;
  bytes[20] = '}';
  check(bytes);
  bytes = good;
  bytes[13] = 1;  // the size of the header
  check(bytes);
}

}  // namespace
}  // namespace fathom
