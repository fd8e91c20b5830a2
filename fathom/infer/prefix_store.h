// Pages of the prefix cache in a folder, so that they outlive memory and process: a file for each
// page, named by its key. Nothing that goes wrong with the folder stops the work or changes its
// result: it becomes a warning, and the keys are computed.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "fathom/infer/page_file.h"

namespace fathom {

struct PrefixStoreOptions {
  std::string folder;  // made if absent; several processes and models may share it
  int64_t limit_bytes = int64_t{4} << 30;  // of all pages there; least recently used ones go
  // Everything that decides the bits of keys besides the tokens: model, weights, numbers, program.
  std::string owner;
};

struct PrefixStoreStats {
  int64_t num_pages = 0, size_bytes = 0;  // in the folder, as far as this process knows
  int64_t num_read = 0, num_written = 0;
};

// One thread at a time.
class PrefixStore {
 public:
  // Lists the folder; removes what a killed process left unfinished. Throws Error when the folder
  // cannot be used.
  explicit PrefixStore(PrefixStoreOptions options);

  const PageKey& root() const { return root_; }  // key of the empty text
  bool contains(const PageKey& key) const { return files_.contains(key); }
  // False: not there, or damaged. Then `parts` may hold anything.
  bool read(const PageId& id, const PageParts& parts);
  // Does nothing for a page that is there. After a failure nothing more is written. The limit holds
  // after the next touch().
  void write(const PageId& id, const PageParts& parts);
  // Marks the pages of one text, first to last, as used now. A page counts as older than the one
  // before it, so that texts lose their ends first.
  void touch(const std::vector<PageKey>& chain);

  std::vector<std::string> take_warnings();
  PrefixStoreStats stats() const;

 private:
  struct File {
    int64_t size_bytes = 0;
    int64_t used_ns = 0;  // as the file's time of modification
  };

  std::string path(const PageKey& key) const;
  void list();
  void forget(const PageKey& key);
  void trim();

  PrefixStoreOptions options_;
  PageKey root_;
  std::map<PageKey, File> files_;
  int64_t size_bytes_ = 0, num_read_ = 0, num_written_ = 0;
  bool failed_ = false;  // to write
  std::vector<std::byte> buffer_;
  std::vector<std::string> warnings_;
};

}  // namespace fathom
