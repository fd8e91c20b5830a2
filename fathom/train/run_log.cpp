#include "fathom/train/run_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "fathom/base/database.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/train/tensorboard.h"

namespace fathom {
namespace {

constexpr const char* kSchema = R"sql(
  CREATE TABLE IF NOT EXISTS run(key TEXT PRIMARY KEY, value TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS series(name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, time REAL NOT NULL,
    PRIMARY KEY(name, step)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS texts(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, time REAL NOT NULL);
  CREATE TABLE IF NOT EXISTS cells(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, name TEXT NOT NULL,
    row TEXT NOT NULL, col TEXT NOT NULL, value TEXT NOT NULL, UNIQUE(name, row, col));
)sql";

double now_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string database_path(const std::string& folder) { return folder + "/metrics.sqlite"; }

void remember(std::vector<std::string>& names, const std::string& name) {
  if (std::ranges::find(names, name) == names.end()) names.push_back(name);
}

}  // namespace

RunLog::RunLog(const std::string& folder, Mode mode) : folder_(folder) {
  const bool there = file_exists(database_path(folder));
  if (mode == Mode::kCreate && there) {
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected a folder without a run, found one", folder),
                "resume it, or choose another folder");
  }
  if (mode == Mode::kResume && !there) {
    throw Error(Code::kNotFound,
                fmt::format("{}: expected a run (metrics.sqlite), found none", folder),
                "check the path, or start a fresh run");
  }
  make_folders(folder);
  database_ = std::make_unique<Database>(database_path(folder), Database::Access::kReadWrite);
  database_->run(kSchema);
  Statement last = database_->prepare("SELECT coalesce(max(step), -1) FROM series");
  last.step();
  tensorboard_ = std::make_unique<TensorBoardWriter>(folder, last.integer(0) + 1, now_s());
}

RunLog::RunLog() = default;
RunLog::~RunLog() = default;

void RunLog::set_config(std::string_view key, std::string_view value) {
  const std::pair<std::string, std::string> one(key, value);
  set_config({&one, 1});
}

void RunLog::set_config(std::span<const std::pair<std::string, std::string>> values) {
  if (!database_) return;
  Transaction all(*database_);
  Statement put = database_->prepare(
      "INSERT INTO run VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value");
  for (const auto& [key, value] : values) put.bind(1, key).bind(2, value).run();
  all.commit();
}

void RunLog::log(int64_t step, std::span<const Metric> values) {
  if (!database_) return;
  const double time_s = now_s();
  Transaction all(*database_);
  Statement put = database_->prepare(
      "INSERT OR REPLACE INTO series(name, step, value, time) VALUES(?, ?, ?, ?)");
  for (const auto& [name, value] : values)
    put.bind(1, name).bind(2, step).bind(3, value).bind(4, time_s).run();
  all.commit();
  tensorboard_->scalars(step, time_s, values);
}

void RunLog::text(int64_t step, std::string_view kind, std::string_view text) {
  if (!database_) return;
  Transaction all(*database_);
  database_->prepare("INSERT INTO texts(step, kind, text, time) VALUES(?, ?, ?, ?)")
      .bind(1, step)
      .bind(2, kind)
      .bind(3, text)
      .bind(4, now_s())
      .run();
  all.commit();
}

void RunLog::cell(int64_t step, std::string_view table, std::string_view row,
                  std::string_view column, std::string_view value) {
  if (!database_) return;
  Transaction all(*database_);
  database_
      ->prepare(
          "INSERT INTO cells(step, name, row, col, value) VALUES(?, ?, ?, ?, ?) "
          "ON CONFLICT(name, row, col) DO UPDATE SET step = excluded.step, value = excluded.value")
      .bind(1, step)
      .bind(2, table)
      .bind(3, row)
      .bind(4, column)
      .bind(5, value)
      .run();
  all.commit();
}

void RunLog::truncate_after(int64_t step) {
  if (!database_) return;
  {
    Transaction all(*database_);
    database_->prepare("DELETE FROM series WHERE step > ?").bind(1, step).run();
    database_->prepare("DELETE FROM texts WHERE step > ?").bind(1, step).run();
    database_->prepare("DELETE FROM cells WHERE step > ?").bind(1, step).run();
    all.commit();
  }
  tensorboard_ = std::make_unique<TensorBoardWriter>(folder_, step + 1, now_s());
}

RunData load_run(const std::string& folder) {
  if (!file_exists(database_path(folder))) {
    throw Error(Code::kNotFound,
                fmt::format("{}: expected a run (metrics.sqlite), found none", folder),
                "give the folder that a training command wrote");
  }
  Database database(database_path(folder), Database::Access::kReadOnly);
  database.run("BEGIN");  // one snapshot for all queries
  RunData run;
  Statement config = database.prepare("SELECT key, value FROM run ORDER BY rowid");
  while (config.step()) run.config.emplace_back(config.text(0), config.text(1));
  Statement series =
      database.prepare("SELECT name, step, value, time FROM series ORDER BY name, step");
  while (series.step()) {
    const std::string name = series.text(0);
    if (run.series.empty() || run.series.back().name != name) run.series.push_back({.name = name});
    RunSeries& s = run.series.back();
    s.step.push_back(series.integer(1));
    s.value.push_back(series.real(2));
    s.time_s.push_back(series.real(3));
  }
  Statement texts = database.prepare("SELECT step, kind, text FROM texts ORDER BY step, id");
  while (texts.step()) run.texts.push_back({texts.integer(0), texts.text(1), texts.text(2)});
  Statement cells = database.prepare("SELECT name, row, col, value FROM cells ORDER BY id");
  while (cells.step()) {
    const std::string name = cells.text(0), row = cells.text(1), column = cells.text(2);
    auto table = std::ranges::find(run.tables, name, &RunTable::name);
    if (table == run.tables.end()) table = run.tables.insert(table, {.name = name});
    remember(table->rows, row);
    remember(table->columns, column);
    table->cells[{row, column}] = cells.text(3);
  }
  return run;
}

}  // namespace fathom
