// FATHOM_DUMP=FOLDER: every forward pass of a command leaves its named tensors in a file there, for
// `fathom diff`.
#pragma once

#include <memory>
#include <string>

#include "fathom/tensor/probe.h"

namespace fathom {

// pass_000001.safetensors and so on; a pass begins with the embeddings (hidden.0). The last one is
// written by the destructor.
class DumpProbe final : public Probe {
 public:
  // Throws Error when the folder cannot be made, or holds passes already.
  explicit DumpProbe(std::string folder);
  ~DumpProbe() override;
  void put(std::string_view name, const View& view) override;
  void flush();  // writes what is there; throws Error

 private:
  std::string folder_;
  int num_passes_ = 0;
  MemoryProbe pass_;
};

// Null when FATHOM_DUMP is not set.
std::unique_ptr<DumpProbe> dump_from_environment();

}  // namespace fathom
