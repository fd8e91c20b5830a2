#include "fathom/model/verify_checkpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/sha256.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_folder.h"

namespace fathom {
namespace {

constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int64_t kPieceBytes = int64_t{8} << 20;

bool is_scale(std::string_view name) { return name.ends_with("weight_scale_inv"); }

// Index of the first element that `bad` accepts; -1: none. Looks at blocks without branches.
template <class T, class Bad>
int64_t first_bad(const void* data, int64_t begin, int64_t end, const Bad& bad) {
  const T* x = static_cast<const T*>(data);
  constexpr int64_t kBlock = 4096;
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t stop = std::min(end, at + kBlock);
    unsigned any = 0;
    for (int64_t i = at; i < stop; ++i) any |= static_cast<unsigned>(bad(x[i]));
    for (int64_t i = at; any != 0 && i < stop; ++i)
      if (bad(x[i])) return i;
  }
  return -1;
}

// The first element that is NaN or infinite, or as a scale not positive.
int64_t first_bad(const View& v, bool e8m0, bool scale, int64_t begin, int64_t end) {
  switch (v.dtype) {
    case DType::kF32:
      if (scale)
        return first_bad<uint32_t>(v.data, begin, end, [](uint32_t b) {
          return (b & 0x7F800000u) == 0x7F800000u || b == 0 || b >= 0x80000000u;
        });
      return first_bad<uint32_t>(v.data, begin, end,
                                 [](uint32_t b) { return (b & 0x7F800000u) == 0x7F800000u; });
    case DType::kF64:
      return first_bad<uint64_t>(v.data, begin, end, [](uint64_t b) {
        return (b & 0x7FF0000000000000u) == 0x7FF0000000000000u;
      });
    case DType::kBF16:
      return first_bad<uint16_t>(v.data, begin, end, [scale](uint16_t b) {
        return (b & 0x7F80u) == 0x7F80u || (scale && (b == 0 || b >= 0x8000u));
      });
    case DType::kF16:
      return first_bad<uint16_t>(v.data, begin, end, [scale](uint16_t b) {
        return (b & 0x7C00u) == 0x7C00u || (scale && (b == 0 || b >= 0x8000u));
      });
    case DType::kE4M3:
      return first_bad<uint8_t>(v.data, begin, end, [](uint8_t b) { return (b & 0x7Fu) == 0x7Fu; });
    case DType::kU8:
      if (!e8m0) return -1;
      return first_bad<uint8_t>(v.data, begin, end, [](uint8_t b) { return b == 0xFF; });
    default:
      return -1;
  }
}

class Verifier {
 public:
  Verifier(const std::string& folder, bool checksums, ThreadPool& pool, WorkProgress* progress)
      : folder_(folder), checksums_(checksums), pool_(pool), progress_(progress) {}

  VerifyReport run() {
    if (!folder_exists(folder_))
      throw Error(Code::kNotFound, fmt::format("{}: expected a folder with a checkpoint", folder_),
                  "check the path");
    attempt([&] { read_config(folder_ + "/config.json"); });
    open_files();
    if (report_.defects.empty()) attempt([&] { check_tensors(); });
    scan();
    return std::move(report_);
  }

 private:
  // A part of a tensor to look through, or a whole file to sum up.
  struct Task {
    size_t shard = 0;
    const SafetensorsEntry* entry = nullptr;  // null: the file's checksum
    int64_t begin = 0, end = 0;
    int64_t size_bytes = 0;
  };

  template <class Work>
  void attempt(const Work& work) {
    try {
      work();
    } catch (const InternalError&) {
      throw;
    } catch (const Error& e) {
      report_.defects.push_back(e.message());
    }
  }

  void open(const std::string& name) {
    attempt([&] {
      shards_.emplace_back(folder_ + "/" + name);
      report_.files.push_back({name, static_cast<int64_t>(file_size(folder_ + "/" + name)), ""});
    });
  }

  void open_files() {
    std::set<std::string> used;
    if (file_exists(folder_ + "/" + kIndexFile))
      attempt([&] { open_index(used); });
    else
      for (const char* name : {"model.safetensors", "model0-mp1.safetensors"})
        if (used.empty() && file_exists(folder_ + "/" + name)) {
          used.insert(name);
          open(name);
        }
    if (used.empty() && report_.defects.empty())
      report_.defects.push_back(
          fmt::format("{}: expected model.safetensors or {}, found neither", folder_, kIndexFile));
    for (const std::string& name : list_folder(folder_))
      if (name.ends_with(".safetensors") && !used.contains(name))
        report_.remarks.push_back(fmt::format("{} belongs to nothing", name));
  }

  void open_index(std::set<std::string>& used) {
    const std::string path = folder_ + "/" + kIndexFile;
    const Json json = Json::parse(read_file(path), path);
    std::map<std::string, std::set<std::string>> by_file;
    for (const auto& [name, file] : json.at("weight_map").members())
      by_file[file.as_string()].insert(name);
    for (const auto& [file, names] : by_file) {
      used.insert(file);
      if (!file_exists(folder_ + "/" + file)) {
        report_.defects.push_back(
            fmt::format("{}: {} with {} tensors is missing", kIndexFile, file, names.size()));
        continue;
      }
      const size_t before = shards_.size();
      open(file);
      if (shards_.size() > before) compare_index(file, names);
    }
  }

  void compare_index(const std::string& file, const std::set<std::string>& names) {
    const SafetensorsFile& shard = shards_.back();
    for (const std::string& name : names)
      if (!shard.find(name))
        report_.defects.push_back(
            fmt::format("{}: tensor {} should be in {}, which lacks it", kIndexFile, name, file));
    for (const SafetensorsEntry& e : shard.entries())
      if (!names.contains(e.name))
        report_.remarks.push_back(fmt::format("{}: tensor {} is not in the index", file, e.name));
  }

  void check_tensors() {
    const CheckpointFolder checkpoint(folder_);
    std::set<std::string> used;
    for (const TensorSpec& spec : tensor_specs(checkpoint.config())) {
      used.insert(spec.name);
      used.insert(scale_name(spec.name));
      used.insert(code_scale_name(spec.name));
      attempt([&] {
        if (!checkpoint.weight(spec).tensor)
          report_.remarks.push_back(fmt::format("{} is not stored (a copy)", spec.name));
      });
    }
    for (const std::string& name : checkpoint.names())
      if (!used.contains(name) && !name.ends_with("rotary_emb.inv_freq"))
        report_.remarks.push_back(fmt::format("tensor {} has no place in this model", name));
  }

  std::vector<Task> tasks() {
    std::vector<Task> out;
    if (checksums_)  // the longest first
      for (size_t s = 0; s < shards_.size(); ++s)
        out.push_back({.shard = s, .size_bytes = report_.files[s].size_bytes});
    for (size_t s = 0; s < shards_.size(); ++s)
      for (const SafetensorsEntry& e : shards_[s].entries()) {
        const int64_t width = dtype_bytes(e.dtype);
        const auto numel = static_cast<int64_t>(e.end - e.begin) / width;
        ++report_.num_tensors;
        report_.num_elements += numel;
        const int64_t step = kPieceBytes / width;
        for (int64_t begin = 0; begin < numel; begin += step) {
          const int64_t end = std::min(numel, begin + step);
          out.push_back({s, &e, begin, end, (end - begin) * width});
        }
      }
    return out;
  }

  void scan() {
    const std::vector<Task> all = tasks();
    int64_t total_bytes = 0, done_bytes = 0;
    for (const Task& t : all) total_bytes += t.size_bytes;
    std::mutex mutex;  // guards done_bytes, found and progress_
    std::map<const SafetensorsEntry*, std::pair<size_t, int64_t>> found;  // shard, first element
    pool_.parallel_for(static_cast<int64_t>(all.size()), 1, [&](int64_t b, int64_t e, int) {
      for (int64_t i = b; i < e; ++i) {
        const Task& t = all[static_cast<size_t>(i)];
        int64_t bad = -1;
        if (t.entry)
          bad = first_bad(shards_[t.shard].tensor(*t.entry), t.entry->e8m0, is_scale(t.entry->name),
                          t.begin, t.end);
        else
          report_.files[t.shard].sha256 = checksum(t.shard);
        const std::lock_guard lock(mutex);
        if (bad >= 0) {
          const auto [it, fresh] = found.try_emplace(t.entry, t.shard, bad);
          if (!fresh) it->second.second = std::min(it->second.second, bad);
        }
        done_bytes += t.size_bytes;
        if (progress_) progress_->put(done_bytes, total_bytes);
      }
    });
    for (size_t s = 0; s < shards_.size(); ++s)
      for (const SafetensorsEntry& e : shards_[s].entries())
        if (const auto it = found.find(&e); it != found.end()) describe(s, e, it->second.second);
  }

  std::string checksum(size_t shard) const {
    const MappedFile file(folder_ + "/" + report_.files[shard].name);
    const auto bytes = file.bytes();
    return sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  void describe(size_t shard, const SafetensorsEntry& e, int64_t at) {
    const Tensor t = shards_[shard].tensor(e);
    const std::string value = e.e8m0 ? "nan" : fmt::format("{}", get_element(t, at));
    const int64_t columns = e.shape.empty() ? 1 : e.shape.back();
    report_.defects.push_back(
        fmt::format("{}: tensor {}: expected {}, found {} at [{}, {}]", report_.files[shard].name,
                    e.name, is_scale(e.name) ? "positive, finite scales" : "finite numbers", value,
                    at / columns, at % columns));
  }

  const std::string& folder_;
  bool checksums_;
  ThreadPool& pool_;
  WorkProgress* progress_;
  std::vector<SafetensorsFile> shards_;  // beside report_.files
  VerifyReport report_;
};

}  // namespace

VerifyReport verify_checkpoint(const std::string& folder, bool checksums, ThreadPool& pool,
                               WorkProgress* progress) {
  return Verifier(folder, checksums, pool, progress).run();
}

std::vector<std::string> compare_checksums(const VerifyReport& report, const std::string& lines) {
  constexpr size_t kDigits = 64;
  std::map<std::string, std::string> want;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    const bool sum = line.size() > kDigits + 2 && line[kDigits] == ' ' &&
                     line.find_first_not_of("0123456789abcdef") == kDigits;
    if (sum) want[line.substr(kDigits + 2)] = line.substr(0, kDigits);
  }
  if (want.empty())
    throw Error(Code::kInvalidArgument, "expected lines of a SHA-256 and a file name, found none");
  std::vector<std::string> out;
  for (const VerifyReport::File& f : report.files) {
    const auto it = want.find(f.name);
    if (it == want.end())
      out.push_back(fmt::format("{}: not among the checksums", f.name));
    else if (it->second != f.sha256)
      out.push_back(fmt::format("{}: expected SHA-256 {}, found {}", f.name, it->second, f.sha256));
    if (it != want.end()) want.erase(it);
  }
  for (const auto& [name, sum] : want)
    if (name.ends_with(".safetensors")) out.push_back(fmt::format("{}: missing", name));
  return out;
}

}  // namespace fathom
