// A checkpoint folder in the Hugging Face layout: config.json with model.safetensors, or with
// shards and model.safetensors.index.json. Opening maps the files; nothing is read but headers and
// scales.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/model/checkpoint_writer.h"
#include "fathom/model/config.h"
#include "fathom/model/stored_weight.h"
#include "fathom/model/tensor_names.h"
#include "fathom/tensor/safetensors.h"

namespace fathom {

// What a check of the whole folder found besides errors, for the caller to report.
struct CheckpointReport {
  std::vector<std::string> extra;  // tensors that the config has no use for
  std::vector<std::string>
      absent_optional;     // copies in multi-token prediction layers that the files lack
  int64_t size_bytes = 0;  // of all tensors
};

// Copies share the maps. Immutable, usable from any thread.
class CheckpointFolder {
 public:
  // Throws Error that names the file and the defect: no config or weights, an unreadable shard, an
  // index that names a missing shard or a tensor that its shard lacks, a tensor in two shards.
  // Tensors under the inference demo's names (one file, not split over ranks) are found under their
  // published ones.
  explicit CheckpointFolder(const std::string& folder);

  const std::string& path() const;
  // As in config.json; num_nextn_predict_layers is 0 when the files hold no tensor of those layers.
  const ModelConfig& config() const;

  const std::vector<SafetensorsFile>& shards() const;
  const std::vector<std::string>& names() const;  // of all tensors, as the shards list them

  bool contains(std::string_view name) const;
  const SafetensorsEntry* find(std::string_view name) const;  // null when absent
  Tensor tensor(std::string_view name) const;                 // throws Error (kNotFound)

  // The weight and its scale, which may be in another shard. Throws Error when it is missing and
  // not optional, has other sizes than `spec`, an element type that cannot be a weight, or is
  // F8_E4M3 without a usable scale. Scales may be F32, BF16, F16 or E8M0 bytes, per block or per
  // row ([out, 1]).
  StoredWeight weight(const TensorSpec& spec) const;

  // Pages that tensors were read from leave memory until they are touched again; with `drop_cached`
  // they leave the system's page cache too.
  void release_pages(bool drop_cached) const;

  // weight() for every tensor of the config.
  CheckpointReport check() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Writes everything with a CheckpointWriter. Loading gives the same bits back.
void save_checkpoint_folder(const std::string& folder, const ModelConfig& config,
                            std::span<const NamedTensor> tensors,
                            int64_t max_shard_bytes = kMaxShardBytes);

}  // namespace fathom
