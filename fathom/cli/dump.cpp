#include "fathom/cli/dump.h"

#include <fmt/core.h>

#include "fathom/base/env.h"
#include "fathom/base/file.h"

namespace fathom {

DumpProbe::DumpProbe(std::string folder) : folder_(std::move(folder)) {
  make_folders(folder_);
  for (const std::string& name : list_folder(folder_))
    if (name.starts_with("pass_"))
      throw Error(
          Code::kInvalidArgument,
          fmt::format("FATHOM_DUMP: expected a folder without passes, {} holds {}", folder_, name),
          "remove them or name another folder");
}

DumpProbe::~DumpProbe() {
  try {
    flush();
  } catch (const Error& e) {
    fmt::print(stderr, "fathom: the last pass was not dumped: {}\n", e.what());
  }
}

void DumpProbe::put(std::string_view name, const View& view) {
  if (name == "hidden.0") flush();
  pass_.put(name, view);
}

void DumpProbe::flush() {
  if (pass_.tensors().empty()) return;
  pass_.write(fmt::format("{}/pass_{:06}.safetensors", folder_, ++num_passes_));
  pass_.clear();
}

std::unique_ptr<DumpProbe> dump_from_environment() {
  const std::string folder = env_value("FATHOM_DUMP");
  return folder.empty() ? nullptr : std::make_unique<DumpProbe>(folder);
}

}  // namespace fathom
