#include "fathom/infer/prefix_store.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/sha256.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEnding = ".fmpage";
// A page is written in milliseconds: what has an unfinished name for this long was left by a
// process that died.
constexpr int64_t kAbandoned_ns = int64_t{60} * 1'000'000'000;
constexpr int64_t kStep_ns = 1000;  // between the times of a text's pages

int64_t to_ns(fs::file_time_type time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

int64_t now_ns() { return to_ns(fs::file_time_type::clock::now()); }

bool is_key(const std::string& name) {
  return name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

PrefixStore::PrefixStore(PrefixStoreOptions options)
    : options_(std::move(options)), root_(sha256_hex("prefix cache 1\n" + options_.owner)) {
  make_folders(options_.folder);
  list();
  trim();
}

std::string PrefixStore::path(const PageKey& key) const {
  return options_.folder + "/" + key + kEnding;
}

void PrefixStore::list() {
  int64_t num_foreign = 0;
  std::string foreign;
  for (const std::string& name : list_folder(options_.folder)) {
    const std::string key = name.substr(0, 64), rest = name.substr(key.size());
    const fs::path file = fs::path(options_.folder) / name;
    std::error_code gone;  // another process may have removed it
    const int64_t used_ns = to_ns(fs::last_write_time(file, gone));
    const auto size_bytes = gone ? 0 : static_cast<int64_t>(fs::file_size(file, gone));
    if (gone) continue;
    if (is_key(key) && rest == kEnding) {
      files_[key] = {size_bytes, used_ns};
      size_bytes_ += size_bytes;
    } else if (is_key(key) && rest.starts_with(std::string(kEnding) + ".tmp.")) {
      if (now_ns() - used_ns > kAbandoned_ns) fs::remove(file, gone);
    } else if (num_foreign++ == 0) {
      foreign = name;
    }
  }
  if (num_foreign > 0)
    warnings_.push_back(fmt::format("{}: {} files are not of a prefix cache, {} for one: ignored",
                                    options_.folder, num_foreign, foreign));
}

void PrefixStore::forget(const PageKey& key) {
  const auto it = files_.find(key);
  if (it == files_.end()) return;
  size_bytes_ -= it->second.size_bytes;
  files_.erase(it);
}

bool PrefixStore::read(const PageId& id, const PageParts& parts) {
  if (!contains(id.key)) return false;
  const std::string file = path(id.key);
  try {
    buffer_.resize(file_size(file));
    FileReader(file).read(0, buffer_);
    read_page_bytes(buffer_, file, id, parts);
    ++num_read_;
    return true;
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    // Another process with a smaller limit may have removed it.
    if (e.code() != Code::kNotFound) warnings_.push_back(e.message() + ": ignored");
    forget(id.key);  // so that a good one takes its place
    return false;
  }
}

void PrefixStore::write(const PageId& id, const PageParts& parts) {
  if (failed_ || contains(id.key)) return;
  try {
    write_page_file(path(id.key), id, parts);
    const auto size_bytes = static_cast<int64_t>(file_size(path(id.key)));
    files_[id.key] = {size_bytes, now_ns()};
    size_bytes_ += size_bytes;
    ++num_written_;
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    failed_ = true;
    warnings_.push_back(e.message() + ": no more pages are kept");
  }
}

void PrefixStore::touch(const std::vector<PageKey>& chain) {
  int64_t time_ns = now_ns();
  for (const PageKey& key : chain) {
    time_ns -= kStep_ns;
    const auto it = files_.find(key);
    if (it == files_.end()) continue;
    it->second.used_ns = time_ns;
    std::error_code ignored;  // only the order of leaving suffers
    fs::last_write_time(path(key), fs::file_time_type(std::chrono::nanoseconds(time_ns)), ignored);
  }
  trim();
}

void PrefixStore::trim() {
  while (size_bytes_ > options_.limit_bytes) {
    const auto oldest = std::ranges::min_element(
        files_, {}, [](const auto& entry) { return entry.second.used_ns; });
    std::error_code ignored;
    fs::remove(path(oldest->first), ignored);
    forget(PageKey(oldest->first));
  }
}

std::vector<std::string> PrefixStore::take_warnings() { return std::exchange(warnings_, {}); }

PrefixStoreStats PrefixStore::stats() const {
  return {std::ssize(files_), size_bytes_, num_read_, num_written_};
}

}  // namespace fathom
