#include "fathom/train/run_log.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <limits>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/train/tensorboard.h"

namespace fathom {
namespace {

struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fathom_run_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

// One decoded event: what TensorBoard would read.
struct Event {
  int64_t step = 0;
  std::string file_version;
  bool session_start = false;
  std::vector<Metric> values;
};

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto b = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(b & 0x7F) << shift;
      if (b < 0x80) return value;
    }
  }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view bytes() { return take(varint()); }
  std::string_view take(size_t n) {
    REQUIRE(n <= rest_.size());
    const std::string_view out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return out;
  }

 private:
  std::string_view rest_;
};

Metric decode_value(std::string_view bytes) {
  Metric out;
  Decoder d(bytes);
  while (!d.done()) {
    switch (d.varint()) {
      case 1 << 3 | 2:
        out.first = d.bytes();
        break;
      case 2 << 3 | 5:
        out.second = static_cast<double>(d.fixed<float>());
        break;
      default:
        FAIL("unknown field of a value");
    }
  }
  return out;
}

Event decode_event(std::string_view bytes) {
  Event out;
  Decoder d(bytes);
  while (!d.done()) {
    switch (d.varint()) {
      case 1 << 3 | 1:
        CHECK(d.fixed<double>() > 1.6e9);
        break;  // a time of our days
      case 2 << 3 | 0:
        out.step = static_cast<int64_t>(d.varint());
        break;
      case 3 << 3 | 2:
        out.file_version = d.bytes();
        break;
      case 5 << 3 | 2: {
        Decoder summary(d.bytes());
        while (!summary.done()) {
          CHECK(summary.varint() == (1 << 3 | 2));
          out.values.push_back(decode_value(summary.bytes()));
        }
        break;
      }
      case 7 << 3 | 2:
        out.session_start = d.bytes() == std::string_view("\x08\x01");
        break;
      default:
        FAIL("unknown field of an event");
    }
  }
  return out;
}

std::vector<Event> decode_file(const std::string& path) {
  const std::string file = read_file(path);
  std::vector<Event> out;
  Decoder d(file);
  while (!d.done()) {
    const std::string_view length_bytes = d.take(8);
    CHECK(d.fixed<uint32_t>() == masked_crc32c(length_bytes));
    uint64_t length = 0;
    std::memcpy(&length, length_bytes.data(), 8);
    const std::string_view event = d.take(length);
    CHECK(d.fixed<uint32_t>() == masked_crc32c(event));
    out.push_back(decode_event(event));
  }
  return out;
}

std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> out;
  for (const std::string& name : list_folder(folder))
    if (name.starts_with("events.out.tfevents.")) out.push_back(folder + "/" + name);
  return out;
}

}  // namespace

TEST_CASE("crc32c gives the published check values") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c("") == 0);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);  // RFC 3720, B.4
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43u);
}

TEST_CASE("TensorBoard reads back what was logged") {
  const TemporaryFolder folder;
  {
    RunLog log(folder.path + "/run", RunLog::Mode::kCreate);
    log.log(1, std::vector<Metric>{{"loss/lm", 5.5}, {"speed/tokens_s", 12000}});
    log.log(300, std::vector<Metric>{{"loss/lm", -0.25}});
  }
  const auto files = event_files(folder.path + "/run");
  REQUIRE(files.size() == 1);
  const auto events = decode_file(files[0]);
  REQUIRE(events.size() == 4);
  CHECK(events[0].file_version == "brain.Event:2");
  CHECK(events[1].session_start);
  CHECK(events[1].step == 0);
  CHECK(events[2].step == 1);
  CHECK(events[2].values == std::vector<Metric>{{"loss/lm", 5.5}, {"speed/tokens_s", 12000}});
  CHECK(events[3].step == 300);
  CHECK(events[3].values == std::vector<Metric>{{"loss/lm", -0.25}});
}

TEST_CASE("a run reads back as it was written") {
  const TemporaryFolder folder;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  RunLog log(folder.path, RunLog::Mode::kCreate);
  log.set_config("zeta", "1");
  log.set_config("alpha", "2");
  log.set_config("zeta", "3");
  log.log(1, std::vector<Metric>{{"loss", 2.5}, {"grad", nan}});
  log.log(2, std::vector<Metric>{{"loss", HUGE_VAL}});
  log.text(2, "sample", "caf\xC3\xA9\n");
  log.text(1, "stage", "pretrain");
  log.cell(1, "stages", "pretrain", "tokens", "10");
  log.cell(2, "stages", "sft", "loss", "0.5");
  log.cell(2, "stages", "pretrain", "tokens", "20");
  const RunData run = load_run(folder.path);  // while it is still open for writing
  CHECK(run.config ==
        std::vector<std::pair<std::string, std::string>>{{"zeta", "3"}, {"alpha", "2"}});
  REQUIRE(run.series.size() == 2);
  CHECK(run.series[0].name == "grad");
  CHECK(std::isnan(run.series[0].value[0]));
  CHECK(run.series[1].step == std::vector<int64_t>{1, 2});
  CHECK(run.series[1].value == std::vector<double>{2.5, HUGE_VAL});
  CHECK(run.series[1].time_s[0] > 1.6e9);
  REQUIRE(run.texts.size() == 2);
  CHECK(run.texts[0].text == "pretrain");
  CHECK(run.texts[1].text == "caf\xC3\xA9\n");
  REQUIRE(run.tables.size() == 1);
  CHECK(run.tables[0].rows == std::vector<std::string>{"pretrain", "sft"});
  CHECK(run.tables[0].columns == std::vector<std::string>{"tokens", "loss"});
  CHECK(run.tables[0].cells.at({"pretrain", "tokens"}) == "20");
  CHECK(run.tables[0].cells.size() == 2);
}

TEST_CASE("a resumed run continues one curve from the restored step") {
  const TemporaryFolder folder;
  {
    RunLog log(folder.path, RunLog::Mode::kCreate);
    for (int64_t step = 1; step <= 5; ++step) log.log(step, std::vector<Metric>{{"loss", 1.0}});
    log.text(2, "note", "kept");
    log.text(4, "note", "dropped");
    log.cell(5, "stages", "sft", "loss", "1");
  }
  {
    RunLog log(folder.path, RunLog::Mode::kResume);
    log.truncate_after(3);
    for (int64_t step = 4; step <= 6; ++step) log.log(step, std::vector<Metric>{{"loss", 2.0}});
  }
  const RunData run = load_run(folder.path);
  REQUIRE(run.series.size() == 1);
  CHECK(run.series[0].step == std::vector<int64_t>{1, 2, 3, 4, 5, 6});
  CHECK(run.series[0].value == std::vector<double>{1, 1, 1, 2, 2, 2});
  REQUIRE(run.texts.size() == 1);
  CHECK(run.texts[0].text == "kept");
  CHECK(run.tables.empty());
  const auto last = decode_file(event_files(folder.path).back());
  REQUIRE(last.size() >= 2);
  CHECK(last[1].session_start);  // tells TensorBoard to forget steps 4 and 5 of the file before
  CHECK(last[1].step == 4);
}

TEST_CASE("creating over a run and resuming nothing are errors") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(RunLog(folder.path, RunLog::Mode::kResume), Error);
  CHECK_THROWS_AS(load_run(folder.path), Error);
  { RunLog log(folder.path, RunLog::Mode::kCreate); }
  CHECK_THROWS_AS(RunLog(folder.path, RunLog::Mode::kCreate), Error);
  CHECK(load_run(folder.path).series.empty());
}

TEST_CASE("a file that is no database is a clear error") {
  const TemporaryFolder folder;
  write_file_atomic(folder.path + "/metrics.sqlite", std::string(5000, 'x'));
  try {
    load_run(folder.path);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == Code::kDataLoss);
    CHECK(e.message().find("metrics.sqlite") != std::string::npos);
  }
}

TEST_CASE("a killed run keeps every step that was logged, whole") {
  const TemporaryFolder folder;
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    RunLog log(folder.path, RunLog::Mode::kCreate);
    for (int64_t step = 1;; ++step) {
      log.log(step, std::vector<Metric>{{"a", 1.0}, {"b", 2.0}, {"c", 3.0}});
      if (write(ready[1], "x", 1) != 1) _exit(1);
    }
  }
  close(ready[1]);
  char mark;
  for (int64_t logged = 0; logged < 20; ++logged) REQUIRE(read(ready[0], &mark, 1) == 1);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  const RunData run = load_run(folder.path);
  REQUIRE(run.series.size() == 3);
  CHECK(run.series[0].step.size() >= 20);
  CHECK(run.series[0].step == run.series[2].step);
  RunLog(folder.path, RunLog::Mode::kResume).truncate_after(10);
  CHECK(load_run(folder.path).series[1].step.size() == 10);
}

TEST_CASE("a metric set gathers means, sums and maxima over micro-batches") {
  MetricSet m;
  m.mean("loss", 1.0, 3);
  m.mean("loss", 5.0, 1);
  m.sum("tokens", 10);
  m.sum("tokens", 5);
  m.max("grad", -2);
  m.max("grad", -3);
  m.set("rate", 1);
  m.set("rate", 2);
  CHECK(m.value("loss") == 2.0);
  CHECK(std::isnan(m.value("absent")));
  CHECK(m.take() == std::vector<Metric>{{"loss", 2.0}, {"tokens", 15}, {"grad", -2}, {"rate", 2}});
  CHECK(m.take().empty());
}

}  // namespace fathom
