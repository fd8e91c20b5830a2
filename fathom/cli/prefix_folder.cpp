#include "fathom/cli/prefix_folder.h"

#include <fmt/core.h>

#include "fathom/base/env.h"
#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/memory_plan.h"

namespace fathom {

void PrefixFolderOptions::fields(OptionSet& o) {
  o.add("prefix_cache", &folder, "folder that keeps the keys of prompts, for later runs too");
  o.add("prefix_cache_size", &size, "limit of that folder, like 4G; what was not used goes");
}

std::optional<PrefixStoreOptions> PrefixFolderOptions::store(const std::string& model_folder,
                                                             const std::string& quant) const {
  if (folder.empty()) return std::nullopt;
  PrefixStoreOptions store{.folder = folder};
  try {
    store.limit_bytes = parse_bytes(size);
  } catch (const Error& e) {
    throw UsageError("--prefix-cache-size: " + e.message());
  }
  // Another build may sum in another order.
  store.owner = fmt::format("program {} {}\nquant {}\n{}", file_stamp("/proc/self/exe"),
                            env_value("FATHOM_ISA"), quant, checkpoint_identity(model_folder));
  return store;
}

void print_store_warnings(Engine& engine) {
  if (!engine.store()) return;
  for (const std::string& w : engine.store()->take_warnings())
    fmt::print(stderr, "warning: {}\n", w);
}

}  // namespace fathom
