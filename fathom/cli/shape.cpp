#include "fathom/cli/shape.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/options.h"

namespace fathom {
namespace {

constexpr const char* kShapes = "recipes/shapes";

std::string program_folder() {
  std::array<char, 4096> path;
  const ssize_t n = ::readlink("/proc/self/exe", path.data(), path.size());
  const std::string program(path.data(), n > 0 ? static_cast<size_t>(n) : 0);
  return program.substr(0, program.find_last_of('/') + 1);
}

// The folder of the shapes; empty when there is none.
std::string shapes_folder() {
  for (const std::string& folder :
       {std::string(kShapes), program_folder() + kShapes, program_folder() + "../" + kShapes})
    if (folder_exists(folder)) return folder;
  return "";
}

}  // namespace

ModelConfig read_shape(const std::string& name) {
  if (folder_exists(name)) return read_config(name + "/config.json");
  if (file_exists(name)) return read_config(name);
  const std::string folder = shapes_folder();
  std::vector<std::string> known;
  if (!folder.empty())
    for (const std::string& file : list_folder(folder))
      if (file.ends_with(".json")) known.push_back(file.substr(0, file.size() - 5));
  for (const std::string& shape : known)
    if (shape == name) return read_config(fmt::format("{}/{}.json", folder, name));
  throw Error(
      Code::kNotFound,
      fmt::format("expected a config.json, a folder that holds one, or a known shape, "
                  "found \"{}\"",
                  name),
      known.empty() ? "check the path" : fmt::format("known shapes: {}", fmt::join(known, ", ")));
}

ModelConfig cut_layers(ModelConfig config, const LayerCut& cut) {
  if (cut.mtp_layers >= 0) config.num_nextn_predict_layers = cut.mtp_layers;
  if (cut.dense_layers >= 0) config.first_k_dense_replace = cut.dense_layers;
  const auto at = [](int64_t i) { return static_cast<std::ptrdiff_t>(i); };
  if (!config.indexer_full.empty()) {  // multi-token prediction layers stay behind the others
    std::vector<bool>& full = config.indexer_full;
    if (cut.layers >= 0 && cut.layers < config.num_hidden_layers)
      full.erase(full.begin() + at(cut.layers), full.begin() + at(config.num_hidden_layers));
    if (cut.layers >= 0) config.num_hidden_layers = cut.layers;
    full.resize(static_cast<size_t>(config.num_layers()), true);
  }
  if (cut.layers >= 0) config.num_hidden_layers = cut.layers;
  check_config(config, "the cut config");
  return config;
}

}  // namespace fathom
