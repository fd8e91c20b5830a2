// Random weights in the exact form of published checkpoints, for any shape and without holding the
// model in memory: what cannot be downloaded can still be measured and tested.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/work_progress.h"
#include "fathom/model/checkpoint_writer.h"
#include "fathom/model/weights.h"

namespace fathom {

class ThreadPool;

// kFp8: projections in e4m3 with a scale per 128 x 128, as DeepSeek publishes them; the rest bf16.
// In every form the routing bias and the norm of the indexer's key are f32.
enum class SyntheticForm : uint8_t { kF32, kBF16, kFp8 };

SyntheticForm parse_synthetic_form(std::string_view name);  // "f32", "bf16", "fp8"; throws Error
const char* synthetic_form_name(SyntheticForm form);

// Weights are close to normal with the config's initializer_range, norms close to 1, biases small.
// Values depend on the seed and the tensor's name alone. Immutable, usable from any thread.
class SyntheticWeights {
 public:
  SyntheticWeights(const ModelConfig& config, SyntheticForm form, uint64_t seed);
  ~SyntheticWeights();

  // As they stand in a file, each scale behind its weight.
  const std::vector<SafetensorsEntry>& entries() const;
  // Elements [begin, begin + count) of the tensor `name`, contiguous; begin is a multiple of 8.
  void fill(const std::string& name, int64_t begin, int64_t count, void* out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The config of a synthetic checkpoint: torch_dtype and quantization_config follow the form.
ModelConfig synthetic_config(ModelConfig config, SyntheticForm form);

// Writes synthetic_config() and its weights; memory stays at one buffer. `progress` may be null.
// Throws Error when the folder already holds a checkpoint.
void write_synthetic_checkpoint(const std::string& folder, const ModelConfig& config,
                                SyntheticForm form, uint64_t seed, int64_t max_shard_bytes,
                                ThreadPool& pool, WorkProgress* progress);

// The same numbers in memory. Arena and pool must outlive the source.
std::unique_ptr<WeightSource> synthetic_source(Arena& arena, ThreadPool& pool,
                                               const ModelConfig& config, SyntheticForm form,
                                               uint64_t seed);

}  // namespace fathom
