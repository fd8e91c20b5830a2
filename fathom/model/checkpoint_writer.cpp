#include "fathom/model/checkpoint_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <unordered_set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

constexpr const char* kConfigFile = "config.json";
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

int64_t data_bytes(const SafetensorsEntry& e) {
  int64_t n = dtype_bytes(e.dtype);
  for (const int64_t size : e.shape) n *= size;
  return n;
}

void refuse_used_folder(const std::string& folder) {
  for (const std::string& name : list_folder(folder)) {
    if (name != kConfigFile && name != kIndexFile && !name.ends_with(".safetensors")) continue;
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected a folder without a checkpoint, found {}", folder, name),
                "choose another folder or remove this one");
  }
}

// One past the last tensor of each shard.
std::vector<size_t> plan_shards(const std::vector<SafetensorsEntry>& entries, int64_t max_bytes) {
  std::vector<size_t> ends;
  int64_t size_bytes = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    const int64_t n = data_bytes(entries[i]);
    if (ends.empty() || (size_bytes > 0 && size_bytes + n > max_bytes)) {
      ends.push_back(i);
      size_bytes = 0;
    }
    ends.back() = i + 1;
    size_bytes += n;
  }
  return ends;
}

}  // namespace

struct CheckpointWriter::State {
  std::string folder;
  ModelConfig config;
  std::vector<SafetensorsEntry> entries;
  std::vector<size_t> ends;
  std::optional<SafetensorsWriter> shard;
  size_t shard_idx = 0, next = 0;
  int64_t written_bytes = 0;  // of tensor `next`

  size_t begin_of(size_t s) const { return s == 0 ? 0 : ends[s - 1]; }
  std::string shard_name(size_t s) const {
    return ends.size() == 1 ? kSingleFile
                            : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, ends.size());
  }

  SafetensorsWriter& open_shard() {
    FM_CHECK(next < entries.size(), "all {} tensors are written", entries.size());
    if (!shard) {
      const auto at = [&](size_t i) { return entries.begin() + static_cast<std::ptrdiff_t>(i); };
      const SafetensorsMetadata metadata = {{"format", "pt"}};  // other readers ask for it
      shard.emplace(folder + "/" + shard_name(shard_idx),
                    std::vector<SafetensorsEntry>(at(begin_of(shard_idx)), at(ends[shard_idx])),
                    metadata);
    }
    return *shard;
  }

  void tensor_done() {
    written_bytes = 0;
    if (++next < ends[shard_idx]) return;
    shard->commit();
    shard.reset();
    ++shard_idx;
  }

  void write_index() const {
    Json weight_map = Json::object();
    int64_t size_bytes = 0;
    for (size_t s = 0; s < ends.size(); ++s)
      for (size_t i = begin_of(s); i < ends[s]; ++i) {
        weight_map.members().emplace_back(entries[i].name, Json::string(shard_name(s)));
        size_bytes += data_bytes(entries[i]);
      }
    Json sizes = Json::object(), index = Json::object();
    sizes.set("total_size", Json::number(size_bytes));
    index.set("metadata", std::move(sizes));
    index.set("weight_map", std::move(weight_map));
    write_file_atomic(folder + "/" + kIndexFile, index.dump(2) + "\n");
  }
};

CheckpointWriter::CheckpointWriter(const std::string& folder, const ModelConfig& config,
                                   std::vector<SafetensorsEntry> entries, int64_t max_shard_bytes)
    : state_(new State{folder, config, std::move(entries), {}, {}}) {
  State& s = *state_;
  FM_CHECK(!s.entries.empty(), "no tensors to save in {}", folder);
  std::unordered_set<std::string_view> names;
  for (const SafetensorsEntry& e : s.entries)
    FM_CHECK(names.insert(e.name).second, "tensor {} is given twice", e.name);
  make_folders(folder);
  refuse_used_folder(folder);
  s.ends = plan_shards(s.entries, max_shard_bytes);
  for (size_t i = 0; i < s.ends.size(); ++i)
    std::stable_sort(s.entries.begin() + static_cast<std::ptrdiff_t>(s.begin_of(i)),
                     s.entries.begin() + static_cast<std::ptrdiff_t>(s.ends[i]),
                     [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                       return dtype_bytes(a.dtype) > dtype_bytes(b.dtype);
                     });
}

CheckpointWriter::~CheckpointWriter() = default;

const std::vector<SafetensorsEntry>& CheckpointWriter::entries() const { return state_->entries; }

int64_t CheckpointWriter::size_bytes() const {
  int64_t n = 0;
  for (const SafetensorsEntry& e : state_->entries) n += data_bytes(e);
  return n;
}

void CheckpointWriter::write(const View& tensor) {
  state_->open_shard().write(tensor);
  state_->tensor_done();
}

void CheckpointWriter::write_piece(const void* data, size_t size_bytes) {
  State& s = *state_;
  s.open_shard().write_piece(data, size_bytes);
  s.written_bytes += static_cast<int64_t>(size_bytes);
  if (s.written_bytes == data_bytes(s.entries[s.next])) s.tensor_done();
}

void CheckpointWriter::finish() {
  const State& s = *state_;
  FM_CHECK(s.next == s.entries.size(), "{} of {} tensors are written", s.next, s.entries.size());
  if (s.ends.size() > 1) s.write_index();
  write_file_atomic(s.folder + "/" + kConfigFile, to_json(s.config).dump(2) + "\n");
}

}  // namespace fathom
