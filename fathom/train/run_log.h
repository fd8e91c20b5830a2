// The record of a training run: RUN/metrics.sqlite and TensorBoard event files beside it. Format:
// docs/formats.md.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/train/metrics.h"

namespace fathom {

class Database;
class TensorBoardWriter;

// Each call is one transaction: after a kill it is there in full or not at all. One thread at a
// time.
class RunLog {
 public:
  enum class Mode : uint8_t { kCreate, kResume };

  // kCreate makes the folder and refuses one that holds a run; kResume refuses one that holds none.
  // Throws Error.
  RunLog(const std::string& folder, Mode mode);
  RunLog();  // keeps nothing: of ranks other than the first
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void set_config(std::string_view key, std::string_view value);  // replaces
  void set_config(std::span<const std::pair<std::string, std::string>> values);

  // A value that is there for this step and name is replaced.
  void log(int64_t step, std::span<const Metric> values);

  // A text of some kind: "sample" is shown in reports as it is, "stage" names the stage that begins
  // with this step, "note" is a remark.
  void text(int64_t step, std::string_view kind, std::string_view text);

  // One cell of a table that reports show; rows and columns stand in order of first mention.
  void cell(int64_t step, std::string_view table, std::string_view row, std::string_view column,
            std::string_view value);

  // Forgets everything later than `step`. To be called with the step of the checkpoint that was
  // restored.
  void truncate_after(int64_t step);

  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TensorBoardWriter> tensorboard_;
};

struct RunSeries {
  std::string name;
  std::vector<int64_t> step;   // ascending
  std::vector<double> value;   // may hold NaN
  std::vector<double> time_s;  // seconds since 1970
};

struct RunText {
  int64_t step = 0;
  std::string kind, text;
};

struct RunTable {
  std::string name;
  std::vector<std::string> columns, rows;
  std::map<std::pair<std::string, std::string>, std::string>
      cells;  // (row, column) -> value; may have gaps
};

struct RunData {
  std::vector<std::pair<std::string, std::string>> config;  // in order of first mention
  std::vector<RunSeries> series;                            // sorted by name
  std::vector<RunText> texts;                               // by step, then as written
  std::vector<RunTable> tables;
};

// Reads a run, also one that is being written. Throws Error when `folder` holds none.
RunData load_run(const std::string& folder);

}  // namespace fathom
