#include "fathom/train/trainer.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <filesystem>

#include "fathom/base/file.h"
#include "fathom/comm/comm_testing.h"
#include "fathom/train/next_token.h"
#include "fathom/train/train_testing.h"

namespace fathom {
namespace {

using namespace testing;

struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fathom_train_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

void write_shard(const std::string& folder, uint64_t vocab) {
  make_folders(folder);
  ShardWriter writer({.vocab_size = vocab});
  Rng rng(6, "documents");
  for (int d = 0; d < 40; ++d) {
    std::vector<int32_t> tokens;
    for (uint64_t i = 0; i < 3 + rng.below(20); ++i)
      tokens.push_back(static_cast<int32_t>(rng.below(vocab)));
    writer.add(tokens);
  }
  writer.write(folder + "/text-00000.shard");
}

Recipe two_stages(const std::string& data) {
  Recipe r{.config = nano_config(), .seed = 2, .stages = {}};
  StageRecipe s;
  s.stage = {.name = "first",
             .data = {data},
             .steps = 4,
             .trains = "main",
             .bias_update_speed = 0.01,
             .rows_per_pass = 24,
             .checkpoint_every = 2};
  s.batch = {.batch_size = 3, .seq_len = 16};
  s.objective = stage_a();
  s.optimizer.ema_decay = 0.5;
  s.schedule.warmup_steps = 2;
  r.stages.push_back(s);
  s.stage.name = "second";
  s.stage.steps = 3;
  s.stage.trains = "all";
  s.objective = stage_c();
  s.optimizer.ema_decay = 0;
  r.stages.push_back(s);
  return r;
}

// Stops a run from outside after a number of steps, as a signal or a full disk would.
struct Stopper : TrainObserver {
  explicit Stopper(int64_t after) : last(after) {}
  void on_stage_begin(const StageRecipe& s, const TrainState&) override {
    seen += s.stage.name + " ";
  }
  void on_step(const StepReport& r) override {
    steps.push_back(r.state.global_step);
    losses.push_back(r.loss.total);
    if (r.state.global_step == last) throw Error(Code::kCancelled, "stopped");
  }
  void on_stage_end(const StageRecipe& s, const TrainState&, const Model&) override {
    seen += "end-" + s.stage.name + " ";
  }
  int64_t last;
  std::string seen;
  std::vector<int64_t> steps;
  std::vector<double> losses;
};

TEST_CASE("a run that is stopped after any step and resumed ends in the same bits") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  const Recipe recipe = two_stages(folder.path + "/data");
  Engine e(DType::kF32, 2);
  Stopper whole(-1);
  Trainer reference(e.ctx(), recipe, folder.path + "/whole", false, {}, nullptr);
  reference.run(whole);
  CHECK(whole.seen == "first end-first second end-second ");
  CHECK(whole.steps == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7});
  CHECK(reference.state().stage_idx == 2);
  for (int64_t stop = 1; stop <= 7; ++stop) {
    const std::string run = fmt::format("{}/stopped{}", folder.path, stop);
    Stopper until(stop);
    {
      Trainer trainer(e.ctx(), recipe, run, false, {}, nullptr);
      CHECK_THROWS_AS(trainer.run(until), Error);
    }
    std::vector<std::string> notes;
    Trainer trainer(e.ctx(), recipe, run, true, {}, &notes);
    CHECK(notes.size() == (stop <= 2 ? 1 : 0));  // the first checkpoint follows step 2's report
    Stopper rest(-1);
    trainer.run(rest);
    for (size_t k = 0; k < reference.model().weights.params.size(); ++k)
      CHECK(same_bits(trainer.model().weights.params[k].value,
                      reference.model().weights.params[k].value));
    for (size_t k = 0; k < reference.model().weights.buffers.size(); ++k)
      CHECK(same_bits(trainer.model().weights.buffers[k].value,
                      reference.model().weights.buffers[k].value));
    for (size_t i = 0; i < rest.steps.size(); ++i)
      CHECK(rest.losses[i] == whole.losses[static_cast<size_t>(rest.steps[i] - 1)]);
    const RunData curves = load_run(run);
    for (const RunSeries& s : curves.series)
      if (s.name == "loss/total") CHECK(s.value == whole.losses);
  }
}

std::string file_bytes(const std::string& run, const std::string& name) {
  return read_file(*newest_checkpoint(run, nullptr) + "/" + name);
}

TEST_CASE("any number of ranks ends in the bits of one, also when the number changes on resuming") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  const Recipe recipe = two_stages(folder.path + "/data");  // two passes a batch, at times three
  Engine e(DType::kF32, 2);
  Stopper whole(-1);
  Trainer reference(e.ctx(), recipe, folder.path + "/whole", false, {}, nullptr);
  reference.run(whole);
  const auto on = [&](int ranks, const std::string& run, bool resume, int64_t stop) {
    return on_ranks(ranks, [&](Comm& comm) {
      Engine own(DType::kF32);
      Trainer trainer(own.ctx(), recipe, run, resume, {}, nullptr, &comm);
      Stopper observer(stop);
      trainer.run(observer);
      for (size_t i = 0; i < observer.steps.size(); ++i)
        FM_CHECK(observer.losses[i] == whole.losses[static_cast<size_t>(observer.steps[i] - 1)],
                 "step {} of rank {}", observer.steps[i], comm.rank());
      for (size_t k = 0; k < reference.model().weights.params.size(); ++k)
        FM_CHECK(same_bits(trainer.model().weights.params[k].value,
                           reference.model().weights.params[k].value),
                 "weights {} of rank {}", k, comm.rank());
    });
  };
  for (const int ranks : {2, 3}) {
    const std::string run = fmt::format("{}/on{}", folder.path, ranks);
    for (const std::string& said : on(ranks, run, false, -1)) CHECK(said == std::string());
    for (const char* name : {"model/model.safetensors", "optimizer.safetensors"})
      CHECK(file_bytes(run, name) == file_bytes(folder.path + "/whole", name));
    CHECK(load_run(run).series[0].value == load_run(folder.path + "/whole").series[0].value);
  }
  const std::string run = folder.path + "/changed";
  for (const std::string& said : on(2, run, false, 3)) CHECK(said == "cancelled: stopped");
  for (const std::string& said : on(3, run, true, 6)) CHECK(said == "cancelled: stopped");
  Stopper rest(-1);
  Trainer last(e.ctx(), recipe, run, true, {}, nullptr);
  last.run(rest);
  CHECK(rest.steps == std::vector<int64_t>{5, 6, 7});
  for (const char* name : {"model/model.safetensors", "optimizer.safetensors"})
    CHECK(file_bytes(run, name) == file_bytes(folder.path + "/whole", name));
}

// A program whose step depends on all steps before it, through a file of the checkpoint alone.
struct Counting final : StageProgram {
  int64_t stride = 1;
  struct Steps final : StageSteps {
    Steps(const StageContext& context, int64_t by) : c(context), stride(by) {}
    void step(const TrainState&, StepReport* r) override {
      sum += stride;
      r->tokens = sum;
      r->metrics = {{"count/sum", static_cast<double>(sum)}};
      r->alarms = {fmt::format("sum is {}", sum)};
      c.optimizer.step(c.ctx, 1e-3 * static_cast<double>(sum), 0);
      c.model.weights.pack(c.ctx, true);
    }
    void save(const std::string& folder) const override {
      write_file_atomic(folder + "/sum.txt", std::to_string(sum));
    }
    void load(const std::string& checkpoint) override {
      sum = std::stoll(read_file(checkpoint + "/sum.txt"));
    }
    StageContext c;
    int64_t stride, sum = 0;
  };
  void defaults(const std::string& preset, StageRecipe* stage) override {
    if (preset == "by_two") stride = 2;
    stage->optimizer.weight_decay = 0.25;
  }
  void fields(OptionSet& o) override { o.add("stride", &stride, "of the count"); }
  void check(const ModelConfig&) const override {
    if (stride < 1) throw Error(Code::kInvalidArgument, "stride: expected at least 1");
  }
  std::unique_ptr<StageSteps> begin(const StageContext& c, const TrainState&) override {
    return std::make_unique<Steps>(c, stride);
  }
};

constexpr StageKind kCounting[] = {
    {"counting", []() -> std::shared_ptr<StageProgram> { return std::make_shared<Counting>(); }}};

TEST_CASE("a stage of another kind has its own options and resumes with its own state") {
  TemporaryFolder folder;
  const auto recipe_of = [&](const std::string& lines) {
    Recipe r = parse_recipe(
        "[model]\nmodel_type = \"deepseek_v3\"\narchitectures = "
        "[\"DeepseekV3ForCausalLM\"]\nvocab_size = 8\nhidden_size = 8\n"
        "intermediate_size = 8\nnum_hidden_layers = 1\nfirst_k_dense_replace = 1\n"
        "num_attention_heads = 1\nkv_lora_rank = 4\nqk_nope_head_dim = 4\n"
        "qk_rope_head_dim = 4\nv_head_dim = 4\nn_routed_experts = 2\nnum_experts_per_tok = "
        "1\nmoe_intermediate_size = 4\nrouted_scaling_factor = 1.0\n"
        "[[stage]]\nname = \"c\"\nsteps = 5\ncheckpoint_every = 2\n" +
            lines,
        "r.toml", kCounting);
    return r;
  };
  const Recipe recipe = recipe_of("kind = \"counting\"\npreset = \"by_two\"\nbeta1 = 0.5\n");
  CHECK(recipe.stages[0].optimizer.weight_decay == 0.25);
  CHECK_THROWS_WITH_AS(recipe_of("kind = \"nothing\"\n"), doctest::Contains("kind: expected"),
                       Error);
  CHECK_THROWS_WITH_AS(recipe_of("preset = \"by_two\"\n"), doctest::Contains("preset"), Error);
  CHECK_THROWS_WITH_AS(recipe_of("kind = \"counting\"\nseq_len = 4\n"),
                       doctest::Contains("seq_len"), Error);
  CHECK_THROWS_WITH_AS(recipe_of("kind = \"counting\"\nstride = 0\n"),
                       doctest::Contains("stage \"c\": stride"), Error);
  Engine e(DType::kF32);
  Stopper whole(-1), until(3), rest(-1);
  Trainer reference(e.ctx(), recipe, folder.path + "/whole", false, {}, nullptr);
  reference.run(whole);
  const std::string run = folder.path + "/stopped";
  CHECK_THROWS_AS(Trainer(e.ctx(), recipe, run, false, {}, nullptr).run(until), Error);
  Trainer trainer(e.ctx(), recipe, run, true, {}, nullptr);
  trainer.run(rest);
  CHECK(rest.steps == std::vector<int64_t>{3, 4, 5});
  CHECK(trainer.state().tokens == 2 + 4 + 6 + 8 + 10);
  for (size_t k = 0; k < reference.model().weights.params.size(); ++k)
    CHECK(same_bits(trainer.model().weights.params[k].value,
                    reference.model().weights.params[k].value));
  const RunData log = load_run(run);
  CHECK(log.series[0].name == "count/sum");
  CHECK(log.series[0].value == std::vector<double>{2, 4, 6, 8, 10});
  CHECK(log.texts.back().kind == "alarm");
  CHECK(log.texts.back().text == "sum is 10");
}

TEST_CASE("a stage that the first rank runs alone leaves its weights on all") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  Recipe recipe = two_stages(folder.path + "/data");
  recipe.stages.insert(recipe.stages.begin() + 1, recipe.stages[0]);
  recipe.stages[1].program = std::make_shared<Counting>();
  const auto train = [&](Comm& comm, const std::string& run, std::vector<float>* weights) {
    Engine own(DType::kF32);
    Trainer trainer(own.ctx(), recipe, run, false, {}, nullptr, &comm);
    TrainObserver quiet;
    trainer.run(quiet);
    CHECK(trainer.state().global_step == 11);
    for (const Param& p : trainer.model().weights.params)
      for (int64_t i = 0; i < p.value->numel(); ++i) weights->push_back(p.value->as<float>()[i]);
  };
  const auto alone = make_single_comm();
  std::vector<float> want, got[2];
  train(*alone, folder.path + "/one", &want);
  const auto said =
      on_ranks(2, [&](Comm& comm) { train(comm, folder.path + "/two", &got[comm.rank()]); });
  for (const std::string& s : said) CHECK(s == std::string());
  CHECK(got[0] == want);
  CHECK(got[1] == want);
}

TEST_CASE("only what a stage trains moves; gradients of one stage do not reach the next") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  Recipe recipe = two_stages(folder.path + "/data");
  recipe.stages.resize(1);
  recipe.stages[0].stage.trains = "indexer";
  recipe.stages[0].objective = stage_b();
  recipe.stages[0].stage.bias_update_speed = 0;
  Engine e(DType::kF32);
  Trainer trainer(e.ctx(), recipe, folder.path + "/run", false, {}, nullptr);
  const Model before = random_model(e.ctx(), recipe.config, static_cast<uint64_t>(recipe.seed));
  TrainObserver quiet;
  trainer.run(quiet);
  for (size_t k = 0; k < before.weights.params.size(); ++k) {
    const Param& p = before.weights.params[k];
    CHECK_MESSAGE(same_bits(p.value, trainer.model().weights.params[k].value) != is_indexer(p.name),
                  p.name);
  }
}

TEST_CASE("a stage takes its own gradient_products, whatever the stage before it took") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  Recipe recipe = two_stages(folder.path + "/data");
  recipe.config.hidden_size = 64;
  recipe.config.intermediate_size = 48;
  for (StageRecipe& s : recipe.stages) s.stage.steps = 2;
  Engine e(DType::kF32);
  const auto train = [&](const Recipe& r, const std::string& run) {
    Stopper whole(-1);
    Trainer(e.ctx(), r, run, false, {}, nullptr).run(whole);
    return *newest_checkpoint(run, nullptr) + "/model";
  };
  Recipe first = recipe;
  first.stages.pop_back();
  recipe.stages[1].stage.from = train(first, folder.path + "/base");
  const auto result = [&](const char* one, const char* two) {
    recipe.stages[0].stage.gradient_products = one;
    recipe.stages[1].stage.gradient_products = two;
    const std::string run = fmt::format("{}/{}_{}", folder.path, one, two);
    return read_file(train(recipe, run) + "/model.safetensors");
  };
  const std::string plain = result("f32", "f32"), fastest = result("f32", "auto");
  CHECK(result("auto", "f32") == plain);
  CHECK(result("auto", "auto") == fastest);
  CHECK((plain == fastest) != cpu_simd().has_split_products());
}

TEST_CASE("data that do not fit the model, and none at all, are errors") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 25);
  Engine e(DType::kF32);
  TrainObserver quiet;
  Recipe recipe = two_stages(folder.path + "/data");
  Trainer wide(e.ctx(), recipe, folder.path + "/wide", false, {}, nullptr);
  CHECK_THROWS_WITH_AS(wide.run(quiet), doctest::Contains("found a vocabulary of 25"), Error);
  recipe.stages[0].stage.data = {};
  Trainer none(e.ctx(), recipe, folder.path + "/none", false, {}, nullptr);
  CHECK_THROWS_WITH_AS(none.run(quiet), doctest::Contains("expected data, found none"), Error);
  recipe.stages[0].stage.data = {folder.path + "/absent"};
  Trainer absent(e.ctx(), recipe, folder.path + "/absent_data", false, {}, nullptr);
  CHECK_THROWS_AS(absent.run(quiet), Error);
}

TEST_CASE("a loss that is no number ends the run with an error, before the weights are spoilt") {
  TemporaryFolder folder;
  write_shard(folder.path + "/data", 24);
  Recipe recipe = two_stages(folder.path + "/data");
  recipe.stages[0].schedule.learning_rate = 1e30;
  recipe.stages[0].schedule.warmup_steps = 0;
  Engine e(DType::kF32);
  TrainObserver quiet;
  Trainer trainer(e.ctx(), recipe, folder.path + "/run", false, {}, nullptr);
  CHECK_THROWS_WITH_AS(trainer.run(quiet), doctest::Contains("the loss is"), Error);
}

TEST_CASE("train_batch takes the leading windows with their sequences and weights") {
  Batch b;
  b.tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  b.targets = {2, 3, 4, 5, 6, 7, 8, 9};
  b.loss_mask = {1, 0, 1, 1, 1, 1, 1, 1};
  b.doc_bounds = {0, 3, 4, 6, 8};
  const TrainBatch half = train_batch(b, 4), whole = train_batch(b, 8);
  CHECK(half.token == std::vector<int32_t>{1, 2, 3, 4});
  CHECK(half.bounds == std::vector<int32_t>{0, 3, 4});
  CHECK(half.weight == std::vector<double>{1, 0, 1, 1});
  CHECK(whole.bounds == std::vector<int32_t>{0, 3, 4, 6, 8});
}

}  // namespace
}  // namespace fathom
