// Options of a folder that keeps the keys of prompts for later processes.
#pragma once

#include <optional>
#include <string>

#include "fathom/base/options.h"
#include "fathom/infer/engine.h"

namespace fathom {

struct PrefixFolderOptions {
  std::string folder, size = "4G";
  void fields(OptionSet& o);
  // For an engine on a model that was loaded from `model_folder` with --quant `quant`; nothing
  // without a folder. Throws UsageError.
  std::optional<PrefixStoreOptions> store(const std::string& model_folder,
                                          const std::string& quant) const;
};

// What the store has to say since the last call, to standard error.
void print_store_warnings(Engine& engine);

}  // namespace fathom
