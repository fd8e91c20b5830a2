#include "fathom/train/checkpoint.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <filesystem>

#include "fathom/base/file.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/train/train_testing.h"

namespace fathom {
namespace {

using namespace testing;

struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fathom_ckpt_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

// A model after a few steps, with moments and averages.
struct Run {
  explicit Run(Engine& e, uint64_t seed, const OptimizerOptions& o = {.ema_decay = 0.9})
      : model(random_model(e.ctx(), nano_config(), seed)),
        optimizer(e.ctx(), model.weights.params, o) {}
  void train(Engine& e, int steps) {
    const TrainBatch batch = random_batch({9, 6});
    for (int i = 0; i < steps; ++i) {
      Tape tape;
      Ctx pass = e.ctx(&tape);
      const LossReport r = run_objective(pass, model, batch, count_losses(batch), stage_c());
      optimizer.step(e.ctx(), 1e-2, optimizer.grad_norm(e.ctx()));
      for (const Param& b : model.weights.buffers)
        update_correction_bias(b.value, r.expert_count[1], 1e-3);
      model.weights.pack(e.ctx(), true);
    }
  }
  bool equals(const Run& other) const {
    const auto same = [](const std::vector<Param>& a, const std::vector<Param>& b) {
      for (size_t i = 0; i < a.size(); ++i)
        if (a[i].name != b[i].name || !same_bits(a[i].value, b[i].value)) return false;
      return a.size() == b.size();
    };
    return same(model.weights.params, other.model.weights.params) &&
           same(model.weights.buffers, other.model.weights.buffers) &&
           same(optimizer.state(), other.optimizer.state()) &&
           optimizer.num_steps() == other.optimizer.num_steps();
  }
  Model model;
  Optimizer optimizer;
};

std::vector<std::string> saved(const std::string& run) { return list_folder(run + "/checkpoints"); }

TEST_CASE("a checkpoint gives back every bit, and training goes on as if it had not stopped") {
  for (const DType real : {DType::kF32, DType::kF64}) {
    TemporaryFolder folder;
    Engine e(real);
    Run a(e, 3), b(e, 4);
    a.train(e, 3);
    const TrainState state{
        .stage_idx = 1, .stage_step = 3, .global_step = 12, .tokens = 345, .seconds = 6.5};
    save_train_checkpoint(folder.path, a.model, a.optimizer, state, 2);
    const auto newest = newest_checkpoint(folder.path, nullptr);
    REQUIRE(newest);
    CHECK(*newest == folder.path + "/checkpoints/step_00000012");
    CHECK(read_train_state(*newest) == state);
    CHECK_FALSE(b.equals(a));
    load_model_weights(*newest + "/model", b.model);
    load_optimizer(*newest, &b.optimizer);
    b.model.weights.pack(e.ctx(), true);
    CHECK(b.equals(a));
    a.train(e, 2);
    b.train(e, 2);
    CHECK(b.equals(a));
  }
}

TEST_CASE("only the newest checkpoints stay, and leftovers of killed writers go") {
  TemporaryFolder folder;
  Engine e(DType::kF32);
  Run a(e, 3);
  make_folders(folder.path + "/checkpoints/step_00000001.tmp.77/model");
  make_folders(folder.path + "/checkpoints/step_00000001/model");  // half removed: no manifest
  for (int64_t step = 2; step <= 5; ++step)
    save_train_checkpoint(folder.path, a.model, a.optimizer, {.global_step = step}, 2);
  CHECK(saved(folder.path) == std::vector<std::string>{"step_00000004", "step_00000005"});
  save_train_checkpoint(folder.path, a.model, a.optimizer, {.global_step = 6}, 0);  // never none
  CHECK(saved(folder.path) == std::vector<std::string>{"step_00000006"});
}

TEST_CASE("any damaged file of a checkpoint is named and the one before is taken") {
  TemporaryFolder folder;
  Engine e(DType::kF32);
  Run a(e, 3);
  for (const int64_t step : {1, 2})
    save_train_checkpoint(folder.path, a.model, a.optimizer, {.global_step = step}, 2);
  const std::string first = folder.path + "/checkpoints/step_00000001",
                    second = folder.path + "/checkpoints/step_00000002";
  for (const char* name : {"state.json", "optimizer.safetensors", "MANIFEST.json",
                           "model/config.json", "model/model.safetensors"}) {
    const std::string path = second + "/" + name, whole = read_file(path);
    for (const size_t at : {size_t{0}, whole.size() / 3, whole.size() - 2}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ 1);
      for (const std::string& bytes : {changed, whole.substr(0, at), whole + "x"}) {
        write_file_atomic(path, bytes);
        std::vector<std::string> damaged;
        const auto newest = newest_checkpoint(folder.path, &damaged);
        REQUIRE(newest);
        CHECK_MESSAGE(*newest == first, name << " at " << at);
        REQUIRE(damaged.size() == 1);
        CHECK(damaged[0].starts_with(second + ": "));
        if (std::string(name) != "MANIFEST.json")
          CHECK_MESSAGE(damaged[0].find(name) != std::string::npos, damaged[0]);
      }
    }
    write_file_atomic(path, whole);
    CHECK(newest_checkpoint(folder.path, nullptr) == second);
  }
}

TEST_CASE("a checkpoint of another model or another optimiser is refused") {
  TemporaryFolder folder;
  Engine e(DType::kF32);
  Run a(e, 3), plain(e, 3, {});
  save_train_checkpoint(folder.path, a.model, a.optimizer, {.global_step = 1}, 2);
  const std::string newest = newest_checkpoint(folder.path, nullptr).value();
  CHECK_THROWS_WITH_AS(load_optimizer(newest, &plain.optimizer),
                       doctest::Contains("tensors, found"), Error);
  ModelConfig config = nano_config();
  config.routed_scaling_factor = 1;  // the same shapes, another model
  const Model other = random_model(e.ctx(), config, 3);
  CHECK_THROWS_WITH_AS(load_model_weights(newest + "/model", other),
                       doctest::Contains("another config.json"), Error);
}

TEST_CASE("a state with a negative count is refused") {
  TemporaryFolder folder;
  const std::string good =
      R"({"stage_idx": 1, "stage_step": 2, "global_step": 3, "tokens": 4, "seconds": 0.5})";
  write_file_atomic(folder.path + "/state.json", good);
  CHECK(read_train_state(folder.path).stage_idx == 1);
  for (const char* count : {"1", "2", "3", "4"}) {
    std::string bad = good;
    bad.insert(bad.find(std::string(": ") + count) + 2, "-");
    write_file_atomic(folder.path + "/state.json", bad);
    CHECK_THROWS_WITH_AS(read_train_state(folder.path), doctest::Contains("negative"), Error);
  }
}

TEST_CASE("without a checkpoint there is none, and an unwritable folder is an error") {
  TemporaryFolder folder;
  CHECK_FALSE(newest_checkpoint(folder.path, nullptr));
  CHECK_FALSE(newest_checkpoint(folder.path + "/absent", nullptr));
  Engine e(DType::kF32);
  Run a(e, 3);
  write_file_atomic(folder.path + "/checkpoints", "a file where the folder should be");
  CHECK_THROWS_AS(save_train_checkpoint(folder.path, a.model, a.optimizer, {}, 2), Error);
}

}  // namespace
}  // namespace fathom
