#include "fathom/train/checkpoint.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/rng.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/stage_program.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "MANIFEST.json";

std::string checkpoints_of(const std::string& run) { return run + "/checkpoints"; }

uint64_t checksum_of(const std::string& path) {
  const MappedFile file(path);
  uint64_t sum = hash_mix(0, file.bytes().size());
  size_t i = 0;
  for (; i + 8 <= file.bytes().size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, file.bytes().data() + i, 8);
    sum = hash_mix(sum, word);
  }
  for (; i < file.bytes().size(); ++i) sum = hash_mix(sum, static_cast<uint64_t>(file.bytes()[i]));
  return sum;
}

// Relative paths of all files below a folder, sorted.
std::vector<std::string> files_below(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) out.push_back(fs::relative(entry.path(), folder).string());
  std::sort(out.begin(), out.end());
  return out;
}

void write_manifest(const std::string& folder) {
  Json files = Json::object();
  for (const std::string& name : files_below(folder)) {
    Json one = Json::object();
    one.set("size_bytes", Json::number(static_cast<int64_t>(file_size(folder + "/" + name))));
    one.set("checksum", Json::string(fmt::format("{:016x}", checksum_of(folder + "/" + name))));
    files.set(name, std::move(one));
  }
  Json manifest = Json::object();
  manifest.set("version", Json::number(int64_t{1}));
  manifest.set("files", std::move(files));
  write_file_atomic(folder + "/" + kManifest, manifest.dump(2) + "\n");
}

// What is wrong with a checkpoint, or "".
std::string damage_of(const std::string& folder) {
  try {
    const std::string path = folder + "/" + kManifest;
    const Json manifest = Json::parse(read_file(path), path);
    for (const auto& [name, expect] : manifest.at("files").members()) {
      const std::string file = folder + "/" + name;
      if (!file_exists(file)) return name + " is missing";
      if (static_cast<int64_t>(file_size(file)) != expect.at("size_bytes").as_int())
        return fmt::format("{}: expected {} bytes, found {}", name,
                           expect.at("size_bytes").as_int(), file_size(file));
      if (fmt::format("{:016x}", checksum_of(file)) != expect.at("checksum").as_string())
        return name + ": the checksum differs";
    }
    return "";
  } catch (const Error& e) {
    return e.message();
  }
}

std::vector<std::string> complete_checkpoints(const std::string& run) {
  std::vector<std::string> out;
  const std::string folder = checkpoints_of(run);
  if (!folder_exists(folder)) return out;
  for (const std::string& name : list_folder(folder))
    if (name.starts_with("step_") && name.find(".tmp") == name.npos &&
        file_exists(folder + "/" + name + "/" + kManifest))
      out.push_back(folder + "/" + name);
  return out;  // sorted by name, so by step
}

Json state_json(const TrainState& s, int64_t optimizer_steps) {
  Json j = Json::object();
  j.set("stage_idx", Json::number(s.stage_idx));
  j.set("stage_step", Json::number(s.stage_step));
  j.set("global_step", Json::number(s.global_step));
  j.set("tokens", Json::number(s.tokens));
  j.set("seconds", Json::number(s.seconds));
  j.set("optimizer_steps", Json::number(optimizer_steps));
  return j;
}

Json read_state(const std::string& checkpoint) {
  const std::string path = checkpoint + "/state.json";
  return Json::parse(read_file(path), path);
}

// Leftovers of runs that were killed while they wrote, or removed, a checkpoint.
void remove_unfinished(const std::string& folder) {
  for (const std::string& name : list_folder(folder))
    if (name.find(".tmp") != name.npos ||
        (name.starts_with("step_") && !file_exists(folder + "/" + name + "/" + kManifest)))
      fs::remove_all(folder + "/" + name);
}

}  // namespace

void save_train_checkpoint(const std::string& run, const Model& model, const Optimizer& optimizer,
                           const TrainState& state, int64_t keep, const StageSteps* steps) {
  const std::string folder = checkpoints_of(run);
  make_folders(folder);
  remove_unfinished(folder);
  const std::string final_path = fmt::format("{}/step_{:08}", folder, state.global_step);
  const std::string temporary = fmt::format("{}.tmp.{}", final_path, ::getpid());
  try {
    make_folders(temporary);
    save_model(temporary + "/model", model);
    std::vector<NamedTensor> moments;
    for (const Param& p : optimizer.state())
      moments.push_back({p.name, Tensor(p.value.view(), p.value.node())});
    write_safetensors(temporary + "/optimizer.safetensors", moments);
    write_file_atomic(temporary + "/state.json",
                      state_json(state, optimizer.num_steps()).dump(2) + "\n");
    if (steps) steps->save(temporary);
    write_manifest(temporary);
    sync_folder(temporary);
    std::error_code ec;
    fs::remove_all(final_path, ec);  // an older one of the same step that was found damaged
    fs::rename(temporary, final_path);
    sync_folder(folder);
  } catch (const std::exception& e) {
    std::error_code ec;
    fs::remove_all(temporary, ec);
    const auto* known = dynamic_cast<const Error*>(&e);
    throw Error(known ? known->code() : Code::kDataLoss,
                fmt::format("the checkpoint of step {} could not be written: {}", state.global_step,
                            e.what()),
                "earlier checkpoints are untouched; continue with --resume");
  }
  std::vector<std::string> all = complete_checkpoints(run);
  for (size_t i = 0; static_cast<int64_t>(all.size() - i) > std::max<int64_t>(keep, 1); ++i) {
    // The manifest goes first, so that a folder that is half removed does not count as complete.
    std::error_code ec;
    fs::remove(all[i] + "/" + kManifest, ec);
    fs::remove_all(all[i], ec);
  }
}

std::optional<std::string> newest_checkpoint(const std::string& run,
                                             std::vector<std::string>* damaged) {
  std::vector<std::string> all = complete_checkpoints(run);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    const std::string damage = damage_of(*it);
    if (damage.empty()) return *it;
    if (damaged) damaged->push_back(fmt::format("{}: {}", *it, damage));
  }
  return std::nullopt;
}

TrainState read_train_state(const std::string& checkpoint) {
  const Json j = read_state(checkpoint);
  const TrainState s{.stage_idx = j.at("stage_idx").as_int(),
                     .stage_step = j.at("stage_step").as_int(),
                     .global_step = j.at("global_step").as_int(),
                     .tokens = j.at("tokens").as_int(),
                     .seconds = j.at("seconds").as_double()};
  if (std::min({s.stage_idx, s.stage_step, s.global_step, s.tokens}) < 0)
    throw Error(Code::kDataLoss, checkpoint + "/state.json: expected counts, found a negative one",
                "go on from an earlier checkpoint");
  return s;
}

void load_model_weights(const std::string& folder, const Model& model) {
  const CheckpointFolder files(folder);
  ModelConfig config = model.config;
  config.unknown_fields.clear();
  if (!(files.config() == config))
    throw Error(Code::kInvalidArgument,
                folder + ": expected the model of the recipe, found another config.json",
                "resume with the recipe that the run was started with");
  for (const auto* list : {&model.weights.params, &model.weights.buffers})
    for (const Param& p : *list) convert(files.tensor(p.name), p.value);
}

void load_optimizer(const std::string& checkpoint, Optimizer* optimizer) {
  const SafetensorsFile file(checkpoint + "/optimizer.safetensors");
  const std::vector<Param> state = optimizer->state();
  if (state.size() != file.entries().size())
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected {} tensors, found {}", file.path(), state.size(),
                            file.entries().size()),
                "resume with the recipe that the run was started with");
  for (const Param& p : state) {
    const Tensor t = file.tensor(p.name);
    if (t.view.dtype != p.value->dtype || t.view.numel() != p.value->numel())
      throw Error(
          Code::kInvalidArgument,
          fmt::format("{}: {}: expected {} {} elements, found {}", file.path(), p.name,
                      p.value->numel(), dtype_name(p.value->dtype), file.find(p.name)->describe()),
          "resume with the recipe that the run was started with");
    copy(t, p.value);
  }
  optimizer->set_num_steps(read_state(checkpoint).at("optimizer_steps").as_int());
}

}  // namespace fathom
