#include "fathom/model/synthetic.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/tensor_names.h"

namespace fathom {
namespace {

constexpr int64_t kBlock = 128;
constexpr double kE4M3Max = 448;
constexpr int64_t kPieceElements = int64_t{1} << 20;  // what one thread makes at a time
constexpr double kNormSpread = 0.1, kBiasSpread = 0.01;

int64_t blocks(int64_t size) { return (size + kBlock - 1) / kBlock; }

// Middle values of `n` slices of equal probability of the standard normal distribution, ascending.
std::vector<float> normal_slices(size_t n) {
  std::vector<float> out(n);
  double x = 0;
  for (size_t i = n / 2; i < n; ++i) {
    const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(n);
    for (int round = 0; round < 60; ++round) {  // Newton, from the slice before
      const double density = std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
      const double move = (0.5 * std::erfc(-x / std::sqrt(2.0)) - p) / density;
      x -= std::clamp(move, -0.5, 0.5);
      if (std::fabs(move) < 1e-12) break;
    }
    out[i] = static_cast<float>(x);
    out[n - 1 - i] = -out[i];
  }
  return out;
}

enum class Role : uint8_t { kWeight, kScale, kNorm, kBias };

struct TensorRule {
  Role role = Role::kWeight;
  DType dtype = DType::kF32;
  uint64_t key = 0;  // of its random stream
};

DType dtype_of(const TensorSpec& spec, SyntheticForm form) {
  switch (spec.kind) {
    case TensorKind::kCorrectionBias:
    case TensorKind::kIndexerNorm:
    case TensorKind::kIndexerBias:
      return DType::kF32;
    default:
      break;
  }
  if (form == SyntheticForm::kF32) return DType::kF32;
  return form == SyntheticForm::kFp8 && spec.quantizable ? DType::kE4M3 : DType::kBF16;
}

Role role_of(const TensorSpec& spec) {
  switch (spec.kind) {
    case TensorKind::kNorm:
    case TensorKind::kIndexerNorm:
      return Role::kNorm;
    case TensorKind::kCorrectionBias:
    case TensorKind::kIndexerBias:
      return Role::kBias;
    default:
      return Role::kWeight;
  }
}

// Copies in multi-token prediction layers hold what the main model's tensors hold.
std::string stream_name(const TensorSpec& spec, const ModelConfig& config) {
  if (!spec.optional) return spec.name;
  const bool head = spec.kind == TensorKind::kHead && !config.tie_word_embeddings;
  return head ? "lm_head.weight" : "model.embed_tokens.weight";
}

// Calls put(i, bits) for i in [begin, begin + count), kPerWord values to each word of the stream.
template <int kPerWord, class Put>
void draw(uint64_t key, int64_t begin, int64_t count, const Put& put) {
  constexpr int kBits = 64 / kPerWord;
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  for (int64_t i = 0; i < count; i += kPerWord) {
    uint64_t word = hash_mix(key, static_cast<uint64_t>((begin + i) / kPerWord));
    const int64_t n = std::min<int64_t>(kPerWord, count - i);
    for (int64_t j = 0; j < n; ++j, word >>= kBits) put(i + j, static_cast<size_t>(word & kMask));
  }
}

}  // namespace

SyntheticForm parse_synthetic_form(std::string_view name) {
  for (const SyntheticForm f : {SyntheticForm::kF32, SyntheticForm::kBF16, SyntheticForm::kFp8})
    if (name == synthetic_form_name(f)) return f;
  throw Error(Code::kInvalidArgument, fmt::format("expected f32, bf16 or fp8, found \"{}\"", name));
}

const char* synthetic_form_name(SyntheticForm form) {
  constexpr std::array<const char*, 3> kNames = {"f32", "bf16", "fp8"};
  return kNames[static_cast<size_t>(form)];
}

struct SyntheticWeights::State {
  std::vector<SafetensorsEntry> entries;
  std::unordered_map<std::string, TensorRule> tensors;
  std::vector<float> normal = normal_slices(1 << 16);
  std::array<uint8_t, 256> codes{};  // e4m3, the widest is the largest finite value
  double spread = 0;                 // of weights
  double block_scale = 0;            // brings codes to the spread
  bool ue8m0 = false;

  State(const ModelConfig& config, SyntheticForm form, uint64_t seed)
      : spread(config.initializer_range > 0 ? config.initializer_range : 0.02) {
    const std::vector<float> coarse = normal_slices(codes.size());
    for (size_t i = 0; i < codes.size(); ++i)
      codes[i] = to_e4m3(static_cast<float>(kE4M3Max) * coarse[i] / coarse.back()).bits;
    block_scale = spread * static_cast<double>(coarse.back()) / kE4M3Max;
    ue8m0 = config.quantization_config && config.quantization_config->scale_ue8m0;
    for (const TensorSpec& spec : tensor_specs(config)) {
      const DType dtype = dtype_of(spec, form);
      const std::string stream = stream_name(spec, config);
      add(spec.name, spec.shape, {role_of(spec), dtype, Rng(seed, stream).key()});
      if (dtype != DType::kE4M3) continue;
      add(scale_name(spec.name), {blocks(spec.shape[0]), blocks(spec.shape[1])},
          {Role::kScale, DType::kF32, Rng(seed, scale_name(stream)).key()});
    }
  }

  void add(const std::string& name, const std::vector<int64_t>& shape, const TensorRule& tensor) {
    SafetensorsEntry e;
    e.name = name;
    e.dtype = tensor.dtype;
    e.shape = shape;
    entries.push_back(std::move(e));
    tensors.emplace(name, tensor);
  }

  float value(Role role, float z) const {
    switch (role) {
      case Role::kNorm:
        return 1 + static_cast<float>(kNormSpread) * z;
      case Role::kBias:
        return static_cast<float>(kBiasSpread) * z;
      default:
        return static_cast<float>(spread) * z;
    }
  }

  // Blocks differ, so that a scale at the wrong place shows.
  float scale(size_t bits) const {
    const double u = static_cast<double>(bits) / 65536;
    if (ue8m0) return static_cast<float>(std::exp2(std::round(std::log2(block_scale) + u - 0.5)));
    return static_cast<float>(block_scale * (0.75 + 0.5 * u));
  }
};

SyntheticWeights::SyntheticWeights(const ModelConfig& config, SyntheticForm form, uint64_t seed)
    : state_(new State(config, form, seed)) {}
SyntheticWeights::~SyntheticWeights() = default;

const std::vector<SafetensorsEntry>& SyntheticWeights::entries() const { return state_->entries; }

void SyntheticWeights::fill(const std::string& name, int64_t begin, int64_t count,
                            void* out) const {
  const State& s = *state_;
  FM_CHECK(begin % 8 == 0, "{} is no multiple of 8", begin);
  const auto it = s.tensors.find(name);
  FM_CHECK(it != s.tensors.end(), "{} is no tensor of this model", name);
  const TensorRule& t = it->second;
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  if (t.dtype == DType::kE4M3) {
    auto* y = static_cast<uint8_t*>(out);
    draw<8>(t.key, begin, count, [&](int64_t i, size_t bits) { y[at(i)] = s.codes[bits]; });
  } else if (t.role == Role::kScale) {
    auto* y = static_cast<float*>(out);
    draw<4>(t.key, begin, count, [&](int64_t i, size_t bits) { y[at(i)] = s.scale(bits); });
  } else if (t.dtype == DType::kBF16) {
    auto* y = static_cast<bf16*>(out);
    draw<4>(t.key, begin, count,
            [&](int64_t i, size_t bits) { y[at(i)] = to_bf16(s.value(t.role, s.normal[bits])); });
  } else {
    auto* y = static_cast<float*>(out);
    draw<4>(t.key, begin, count,
            [&](int64_t i, size_t bits) { y[at(i)] = s.value(t.role, s.normal[bits]); });
  }
}

ModelConfig synthetic_config(ModelConfig config, SyntheticForm form) {
  config.torch_dtype = form == SyntheticForm::kF32 ? "float32" : "bfloat16";
  if (form != SyntheticForm::kFp8) {
    config.quantization_config.reset();
  } else {
    if (!config.quantization_config) config.quantization_config.emplace();
    config.quantization_config->block_rows = config.quantization_config->block_cols = kBlock;
  }
  return config;
}

void write_synthetic_checkpoint(const std::string& folder, const ModelConfig& config,
                                SyntheticForm form, uint64_t seed, int64_t max_shard_bytes,
                                ThreadPool& pool, WorkProgress* progress) {
  const ModelConfig shaped = synthetic_config(config, form);
  const SyntheticWeights weights(shaped, form, seed);
  CheckpointWriter writer(folder, shaped, weights.entries(), max_shard_bytes);
  const int64_t total_bytes = writer.size_bytes();
  int64_t done_bytes = 0;
  std::vector<char> buffer;
  for (const SafetensorsEntry& e : writer.entries()) {
    const int64_t width = dtype_bytes(e.dtype);
    int64_t numel = 1;
    for (const int64_t n : e.shape) numel *= n;
    const int64_t batch = 8 * kPieceElements;
    for (int64_t begin = 0; begin < numel; begin += batch) {
      const int64_t count = std::min(batch, numel - begin);
      buffer.resize(std::max(buffer.size(), static_cast<size_t>(count * width)));
      pool.parallel_for(count, kPieceElements, [&](int64_t b, int64_t end, int) {
        weights.fill(e.name, begin + b, end - b, buffer.data() + b * width);
      });
      writer.write_piece(buffer.data(), static_cast<size_t>(count * width));
      done_bytes += count * width;
      if (progress) progress->put(done_bytes, total_bytes);
    }
  }
  writer.finish();
}

namespace {

class MemorySource final : public WeightSource {
 public:
  MemorySource(Arena& arena, ThreadPool& pool, const ModelConfig& config, SyntheticForm form,
               uint64_t seed)
      : arena_(arena), pool_(pool), weights_(synthetic_config(config, form), form, seed) {
    for (const SafetensorsEntry& e : weights_.entries()) entries_.emplace(e.name, &e);
  }

  Tensor find(const std::string& name, const std::vector<int64_t>& shape, Tensor* scale) override {
    const auto it = entries_.find(name);
    FM_CHECK(it != entries_.end(), "{} is no tensor of this model", name);
    FM_CHECK(it->second->shape == shape, "{}: another shape than the specification's", name);
    if (it->second->dtype == DType::kE4M3) *scale = make(*entries_.at(scale_name(name)));
    return make(*it->second);
  }

 private:
  Tensor make(const SafetensorsEntry& e) {
    const Tensor t = e.shape.size() == 1 ? empty(arena_, e.dtype, {e.shape[0]})
                                         : empty(arena_, e.dtype, {e.shape[0], e.shape[1]});
    pool_.parallel_for(t.view.numel(), kPieceElements, [&](int64_t begin, int64_t end, int) {
      weights_.fill(e.name, begin, end - begin, t.view.at_element(begin));
    });
    return t;
  }

  Arena& arena_;
  ThreadPool& pool_;
  SyntheticWeights weights_;
  std::unordered_map<std::string, const SafetensorsEntry*> entries_;
};

}  // namespace

std::unique_ptr<WeightSource> synthetic_source(Arena& arena, ThreadPool& pool,
                                               const ModelConfig& config, SyntheticForm form,
                                               uint64_t seed) {
  return std::make_unique<MemorySource>(arena, pool, config, form, seed);
}

}  // namespace fathom
