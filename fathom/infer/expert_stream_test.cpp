// Experts fetched from the checkpoint when a pass needs them: equal bits whatever the memory.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "fathom/infer/infer_testing.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/memory_plan.h"

namespace fathom {
namespace {

using testing::Machine;
using testing::Outcome;

constexpr int64_t kPlenty = int64_t{1} << 40;

const char* const kFolders[] = {"v32-tiny-fp8", "v32-tiny-fp8-ue8m0", "v32-tiny",
                                "v2lite-tiny",  "moonlight-tiny",     "kimi-tiny"};

std::string golden(const std::string& name) { return "tests/golden/" + name; }

// Room for so many experts, to the byte; at most a byte short of all.
LoadOptions room_for(const MemoryPlan& plan, int64_t experts) {
  return {.memory_bytes = std::min(plan.least_bytes() + (experts - 1) * plan.slot_bytes,
                                   plan.full_bytes() - 1)};
}

// The plan of a model under a limit that is a byte short of all experts.
MemoryPlan plan_of(Machine& m, const std::string& folder) {
  const MemoryPlan whole =
      load_model(m.ctx, folder, WeightUse::kServe, {.memory_bytes = kPlenty}).weights.plan;
  const MemoryPlan plan =
      load_model(m.ctx, folder, WeightUse::kServe, {.memory_bytes = whole.full_bytes() - 1})
          .weights.plan;
  REQUIRE(whole.streams() == false);
  REQUIRE(plan.streams());
  return plan;
}

std::vector<Request> requests_for(const ModelConfig& c, int64_t longest) {
  std::vector<Request> out;
  for (const Request& r : testing::mixed_requests(c, 4))
    if (std::ssize(r.prompt) + 10 < longest) out.push_back(r);
  return out;
}

std::vector<Outcome> answers(Machine& m, const Model& model) {
  Engine engine(m.ctx, model, {.num_pages = 32, .max_step_tokens = 80, .max_context = 150});
  return testing::run_all(engine, requests_for(model.config, engine.max_context()));
}

TEST_CASE("experts in one slot, three slots, all but one: the same bits as with all in memory") {
  for (const char* name : kFolders) {
    CAPTURE(name);
    Machine m(2);
    const Model resident = load_model(m.ctx, golden(name), WeightUse::kServe);
    REQUIRE(!resident.weights.expert_cache);
    const std::vector<Outcome> want = answers(m, resident);
    const MemoryPlan plan = plan_of(m, golden(name));
    for (const int64_t slots : {int64_t{1}, int64_t{3}, plan.num_experts - 1}) {
      for (const int threads : {1, 2}) {
        CAPTURE(slots);
        CAPTURE(threads);
        Machine other(threads);
        const LoadOptions o = room_for(plan, slots);
        const Model model = load_model(other.ctx, golden(name), WeightUse::kServe, o);
        REQUIRE(model.weights.expert_cache);
        CHECK(model.weights.plan.num_slots == std::min(slots, plan.num_slots));
        CHECK(answers(other, model) == want);
        const ExpertStats stats = model.weights.expert_cache->stats();
        CHECK(stats.num_used > 0);
        CHECK(stats.bytes_read > 0);
        CHECK(stats.num_hits <= stats.num_used);
      }
    }
  }
}

// A golden folder again, its experts in another type.
struct Converted {
  std::string path = "/tmp/fathom_experts_" + std::to_string(::getpid());
  Converted(const std::string& folder, DType type) {
    std::filesystem::remove_all(path);
    const SafetensorsFile file(folder + "/model.safetensors");
    Arena arena;
    std::vector<NamedTensor> tensors;
    for (const SafetensorsEntry& e : file.entries()) {
      Tensor t = file.tensor(e);
      if (e.name.find(".experts.") != std::string::npos) {
        const Tensor other = empty(arena, type, {t.view.dim[0], t.view.dim[1]});
        convert(t, other);
        t = other;
      }
      tensors.push_back({e.name, t, e.e8m0});
    }
    save_checkpoint_folder(path, read_config(folder + "/config.json"), tensors);
  }
  ~Converted() { std::filesystem::remove_all(path); }
};

TEST_CASE("experts in types that kernels do not take are converted when they are fetched") {
  for (const DType type : {DType::kF16, DType::kF64, DType::kBF16}) {
    CAPTURE(dtype_name(type));
    const Converted folder(golden("v32-tiny"), type);
    Machine m(2);
    const std::vector<Outcome> want = answers(m, load_model(m.ctx, folder.path, WeightUse::kServe));
    const MemoryPlan plan = plan_of(m, folder.path);
    const Model model = load_model(m.ctx, folder.path, WeightUse::kServe, room_for(plan, 3));
    REQUIRE(model.weights.expert_cache);
    CHECK(answers(m, model) == want);
  }
}

TEST_CASE("a checkpoint that is cut while it is in use is an error of the pass, not a crash") {
  const Converted folder(golden("v32-tiny"), DType::kF32);
  Machine m;
  const Model model =
      load_model(m.ctx, folder.path, WeightUse::kServe, room_for(plan_of(m, folder.path), 1));
  ExpertCache& cache = *model.weights.expert_cache;
  std::filesystem::resize_file(folder.path + "/model.safetensors", 4096);
  cache.begin(0, {2});
  try {
    cache.next();
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == Code::kDataLoss);
  }
}

TEST_CASE("amounts of memory are read with their units") {
  CHECK(parse_bytes("8G") == 8000000000);
  CHECK(parse_bytes("1.5GiB") == 1610612736);
  CHECK(parse_bytes("512M") == 512000000);
  CHECK(parse_bytes("77") == 77);
  for (const char* wrong : {"", "G", "-1G", "0", "8X", "8 G", "nan"})
    CHECK_THROWS_AS(parse_bytes(wrong), Error);
}

TEST_CASE("more slots, more hits") {
  Machine m;
  const std::string folder = golden("v32-tiny");
  const MemoryPlan plan = plan_of(m, folder);
  double last = -1;
  for (const int64_t slots : {int64_t{2}, plan.num_experts / 2, plan.num_experts - 1}) {
    const LoadOptions o = room_for(plan, slots);
    const Model model = load_model(m.ctx, folder, WeightUse::kServe, o);
    answers(m, model);
    const ExpertStats stats = model.weights.expert_cache->stats();
    CHECK(stats.hit_rate() > last);
    last = stats.hit_rate();
  }
  CHECK(last > 0.7);
}

TEST_CASE("a limit that is too small names what is needed") {
  Machine m;
  const std::string folder = golden("v32-tiny-fp8");
  const MemoryPlan plan = plan_of(m, folder);
  const int64_t least = plan.least_bytes();
  CHECK_NOTHROW(load_model(m.ctx, folder, WeightUse::kServe, {.memory_bytes = least}));
  try {
    load_model(m.ctx, folder, WeightUse::kServe, {.memory_bytes = least - 1});
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == Code::kExhausted);
    CHECK(e.message().find("expected at least " + bytes_text(least)) != std::string::npos);
  }
  // The key cache counts.
  CHECK_THROWS_AS(
      load_model(m.ctx, folder, WeightUse::kServe, {.memory_bytes = least, .reserved_bytes = 1}),
      Error);
}

TEST_CASE("the plan is what packing takes") {
  for (const char* name : kFolders) {
    CAPTURE(name);
    Machine m;
    const Model model =
        load_model(m.ctx, golden(name), WeightUse::kServe, {.memory_bytes = kPlenty});
    int64_t packed = 0, experts = 0;
    for (const Packing& p : model.weights.packing) {
      int64_t bytes = 0;
      if (p.forward) bytes += p.weight.packed_bytes(m.ctx.kernels, false);
      if (p.transposed) bytes += p.weight.packed_bytes(m.ctx.kernels, true);
      (p.weight.name().find(".experts.") == std::string::npos ? packed : experts) += bytes;
    }
    CHECK(packed == model.weights.plan.resident_bytes);
    CHECK(experts <= model.weights.plan.num_experts * model.weights.plan.slot_bytes);
  }
}

TEST_CASE("an exception in the middle of a pass leaves the cache usable") {
  Machine m;
  const std::string folder = golden("v32-tiny");
  const LoadOptions o = room_for(plan_of(m, folder), 2);
  const Model model = load_model(m.ctx, folder, WeightUse::kServe, o);
  ExpertCache& cache = *model.weights.expert_cache;
  cache.begin(0, {0, 1, 2, 3});
  CHECK(!cache.next().empty());  // and left there
  cache.begin(0, {3, 1});
  std::vector<int64_t> got;
  for (auto batch = cache.next(); !batch.empty(); batch = cache.next())
    for (const ExpertRef& e : batch) got.push_back(e.expert);
  std::ranges::sort(got);
  CHECK(got == std::vector<int64_t>{1, 3});
}

}  // namespace
}  // namespace fathom
