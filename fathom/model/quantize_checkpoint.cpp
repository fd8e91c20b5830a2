#include "fathom/model/quantize_checkpoint.h"

#include <fmt/core.h>

#include <map>

#include "fathom/base/file.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/tensor/arena.h"

namespace fathom {
namespace {

class Quantizer {
 public:
  Quantizer(const CheckpointFolder& from, Quant quant, ThreadPool& pool)
      : from_(from), quant_(quant), pool_(pool) {
    for (TensorSpec& spec : tensor_specs(from.config())) declare(spec);
  }

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  // The data of one of the entries.
  Tensor data(const std::string& name) {
    const auto it = coded_.find(name);
    if (it == coded_.end()) return from_.tensor(name);
    const QuantizedWeight w = code(it->second.spec);
    return it->second.scale ? w.scale : w.codes;
  }

  std::vector<QuantLoss> losses() const {
    std::vector<QuantLoss> out;
    for (const auto& [name, loss] : losses_) out.push_back(loss);
    return out;
  }

 private:
  struct Coded {
    TensorSpec spec;
    bool scale = false;  // else the codes
  };

  void declare(const TensorSpec& spec) {
    const StoredWeight w = from_.weight(spec);
    if (!w.tensor) return;  // a copy that is not stored
    const Quant q = quant_of(spec, quant_);
    if (q == Quant::kNone) {
      add_as_stored(spec.name);
      if (w.scale) add_as_stored(scale_name(spec.name));
      return;
    }
    const int64_t N = spec.shape[0], K = spec.shape[1];
    add({.name = spec.name, .dtype = quant_dtype(q), .shape = {N, q == Quant::kQ4 ? K / 2 : K}},
        {spec, false});
    add({.name = code_scale_name(spec.name),
         .dtype = DType::kBF16,
         .shape = {N, (K + kQuantGroupSize - 1) / kQuantGroupSize}},
        {spec, true});
  }

  void add_as_stored(const std::string& name) {
    SafetensorsEntry e = *from_.find(name);
    e.name = name;  // a converted demo's file has another one
    entries_.push_back(e);
  }

  void add(SafetensorsEntry entry, Coded what) {
    coded_.emplace(entry.name, std::move(what));
    entries_.push_back(std::move(entry));
  }

  // Codes and scales stand apart in a file, so each weight is coded twice.
  QuantizedWeight code(const TensorSpec& spec) {
    const int64_t N = spec.shape[0], K = spec.shape[1];
    const Quant q = quant_of(spec, quant_);
    const Tensor values = empty(arena_, DType::kF32, {N, K});
    dequantize(from_.weight(spec), values);
    const QuantizedWeight out = empty_quantized(arena_, q, N, K);
    quantize(pool_, values, q, out);
    if (!losses_.contains(spec.name))
      losses_[spec.name] = {spec.name, q, measure_quantized(pool_, values, out)};
    return out;
  }

  const CheckpointFolder& from_;
  Quant quant_;
  ThreadPool& pool_;
  Arena arena_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, Coded> coded_;
  std::map<std::string, QuantLoss> losses_;
};

// All files but weights, packed ones too, and config; the folder of a chat encoding as well.
void copy_other_files(const std::string& from, const std::string& to) {
  make_folders(to);
  for (const std::string& name : list_folder(from)) {
    const std::string path = from + "/" + name;
    if (folder_exists(path)) {
      if (name == "encoding") copy_other_files(path, to + "/" + name);
      continue;
    }
    if (name == "config.json" || name.find(".safetensors") != std::string::npos ||
        name.ends_with(".fmpack"))
      continue;
    write_file_atomic(to + "/" + name, read_file(path));
  }
}

}  // namespace

std::vector<QuantLoss> quantize_checkpoint(const std::string& from, const std::string& to,
                                           Quant quant, ThreadPool& pool, WorkProgress* progress,
                                           int64_t max_shard_bytes) {
  FM_CHECK(quant != Quant::kNone, "no codes to write");
  const CheckpointFolder files(from);
  ModelConfig config = files.config();
  if (config.quant() != Quant::kNone)
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected weights that are not coded yet, found {}", from,
                            quant_name(config.quant())),
                "quantise the original checkpoint");
  if (!config.quantization_config) config.quantization_config.emplace();
  config.quantization_config->quant = quant;
  Quantizer quantizer(files, quant, pool);
  CheckpointWriter writer(to, config, quantizer.entries(), max_shard_bytes);
  int64_t done_bytes = 0;
  for (const SafetensorsEntry& e : writer.entries()) {
    writer.write(quantizer.data(e.name));
    done_bytes += static_cast<int64_t>(e.end - e.begin);
    if (progress) progress->put(done_bytes, writer.size_bytes());
    files.release_pages(false);
  }
  copy_other_files(from, to);
  writer.finish();
  return quantizer.losses();
}

}  // namespace fathom
