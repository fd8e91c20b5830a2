// TensorBoard event files: scalars, appended record by record. Format: docs/formats.md, "Run
// folder".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fathom/train/metrics.h"

namespace fathom {

class TensorBoardWriter {
 public:
  // Starts a file of its own in `folder` (which exists). Readers drop what earlier files say from
  // `first_step` on, so a resumed run shows one curve.
  TensorBoardWriter(const std::string& folder, int64_t first_step, double wall_time_s);
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  // One event with all values; in the file when this returns. Throws Error when the disk is full.
  void scalars(int64_t step, double wall_time_s, std::span<const Metric> values);
  const std::string& path() const { return path_; }

 private:
  void append(const std::string& event);
  std::string path_;
  int fd_ = -1;
};

// CRC-32C (Castagnoli), as TFRecord uses it.
uint32_t crc32c(std::string_view bytes);
// TFRecord's protection of checksums that are stored beside the data they cover.
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace fathom
