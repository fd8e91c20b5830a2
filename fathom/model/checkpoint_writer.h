// Writes a checkpoint folder piece by piece, so that neither the model nor a tensor has to be in
// memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/model/config.h"
#include "fathom/tensor/safetensors.h"

namespace fathom {

inline constexpr int64_t kMaxShardBytes = int64_t{5} << 30;

// Shards of at most max_shard_bytes (a larger tensor has its own), then the index, then
// config.json: a folder without config.json is an unfinished one. Every file appears complete or
// not at all. One thread at a time.
class CheckpointWriter {
 public:
  // Declares all tensors. Throws Error when the folder already holds a checkpoint or part of one.
  CheckpointWriter(const std::string& folder, const ModelConfig& config,
                   std::vector<SafetensorsEntry> entries, int64_t max_shard_bytes = kMaxShardBytes);
  ~CheckpointWriter();

  // The order in which the data must come: shard by shard, in a shard wider elements first, so that
  // all data is aligned; else as declared.
  const std::vector<SafetensorsEntry>& entries() const;
  int64_t size_bytes() const;  // of all tensors

  void write(const View& tensor);                         // the next tensor, any strides
  void write_piece(const void* data, size_t size_bytes);  // of the next tensor, not beyond its end
  void finish();                                          // index and config.json

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom
