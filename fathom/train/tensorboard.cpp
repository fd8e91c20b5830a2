// Event and Summary are protocol buffers, encoded by hand: a field is varint(number << 3 | type)
// and its value; type 0 is a varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
#include "fathom/train/tensorboard.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/file.h"

namespace fathom {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  constexpr uint32_t kPolynomial = 0x82F63B78;  // bit-reversed Castagnoli
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? (c >> 1) ^ kPolynomial : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

template <class T>
void put_fixed(std::string& out, T value) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_key(std::string& out, uint32_t field, uint32_t type) {
  put_varint(out, field << 3 | type);
}

void put_double(std::string& out, uint32_t field, double value) {
  put_key(out, field, 1);
  put_fixed(out, value);
}

void put_float(std::string& out, uint32_t field, float value) {
  put_key(out, field, 5);
  put_fixed(out, value);
}

void put_int(std::string& out, uint32_t field, int64_t value) {
  put_key(out, field, 0);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, uint32_t field, std::string_view value) {
  put_key(out, field, 2);
  put_varint(out, value.size());
  out += value;
}

// Field numbers of tensorboard.Event and what it holds.
enum EventField : uint32_t {
  kWallTime = 1,
  kStep = 2,
  kFileVersion = 3,
  kSummary = 5,
  kSessionLog = 7
};
enum SummaryField : uint32_t { kValue = 1 };
enum ValueField : uint32_t { kTag = 1, kSimpleValue = 2 };
enum SessionField : uint32_t { kStatus = 1 };
constexpr int64_t kSessionStart = 1;

constexpr std::string_view kNamePrefix = "events.out.tfevents.";

std::string next_name(const std::string& folder, double wall_time_s) {
  int earlier = 0;
  for (const std::string& name : list_folder(folder)) earlier += name.starts_with(kNamePrefix);
  // Readers go through the files in order of name.
  return fmt::format("{}{:010d}.{:04d}.fathom", kNamePrefix, static_cast<int64_t>(wall_time_s),
                     earlier);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~uint32_t{0};
  for (const char b : bytes) c = kCrcTable[(c ^ static_cast<unsigned char>(b)) & 0xFF] ^ (c >> 8);
  return ~c;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, int64_t first_step,
                                     double wall_time_s)
    : path_(folder + "/" + next_name(folder, wall_time_s)) {
  fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    throw Error(Code::kUnavailable,
                fmt::format("{}: expected to create it, came: {}", path_, std::strerror(errno)));
  }
  std::string version, restart, session;
  put_double(version, kWallTime, wall_time_s);
  put_bytes(version, kFileVersion, "brain.Event:2");
  append(version);
  put_int(session, kStatus, kSessionStart);
  put_double(restart, kWallTime, wall_time_s);
  put_int(restart, kStep, first_step);
  put_bytes(restart, kSessionLog, session);
  append(restart);
}

TensorBoardWriter::~TensorBoardWriter() {
  if (fd_ >= 0) close(fd_);
}

void TensorBoardWriter::scalars(int64_t step, double wall_time_s, std::span<const Metric> values) {
  std::string event, summary;
  for (const auto& [name, number] : values) {
    std::string value;
    put_bytes(value, kTag, name);
    put_float(value, kSimpleValue, static_cast<float>(number));
    put_bytes(summary, kValue, value);
  }
  put_double(event, kWallTime, wall_time_s);
  put_int(event, kStep, step);
  put_bytes(event, kSummary, summary);
  append(event);
}

// A TFRecord: length, its checksum, bytes, their checksum; in one write, so that records are never
// interleaved.
void TensorBoardWriter::append(const std::string& event) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(event.size()));
  put_fixed(record, masked_crc32c(record));
  record += event;
  put_fixed(record, masked_crc32c(event));
  for (size_t done = 0; done < record.size();) {
    const ssize_t n = ::write(fd_, record.data() + done, record.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const Code code = errno == ENOSPC ? Code::kExhausted : Code::kUnavailable;
      throw Error(code,
                  fmt::format("{}: expected to write {} bytes, came: {}", path_, record.size(),
                              std::strerror(errno)),
                  "free some space and resume the run");
    }
    done += static_cast<size_t>(n);
  }
}

}  // namespace fathom
