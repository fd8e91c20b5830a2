// Pages on disk: what comes back is what computing gives, bit for bit, or nothing.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "fathom/base/file.h"
#include "fathom/infer/infer_testing.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::family_config;
using testing::Machine;
using testing::make_model;
using testing::Outcome;
using testing::random_tokens;
using testing::run_all;

using Ids = std::vector<int32_t>;

struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "fathom_prefix_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path); }
  std::vector<std::string> files() const { return list_folder(path); }
};

// `cut` tokens of a text, then others.
Request request_after(const ModelConfig& c, const Ids& text, int64_t cut, uint64_t seed) {
  Request r;
  r.prompt.assign(text.begin(), text.begin() + cut);
  const Ids own = random_tokens(c, 3, seed);
  r.prompt.insert(r.prompt.end(), own.begin(), own.end());
  r.params = {.seed = seed, .max_tokens = 4};
  return r;
}

TEST_CASE("keys from an earlier process give the bits of computing, cut anywhere") {
  struct Case {
    const char* family;
    KeySelection selection;
    CacheForm cache;
    int64_t num_drafts;
  };
  const Case cases[] = {
      {"v32-nano", KeySelection::kSparse, CacheForm::kF32, 0},
      {"v32-nano", KeySelection::kSparse, CacheForm::kBF16, 0},
      {"v32-nano", KeySelection::kSparse, CacheForm::kFp8, 0},
      {"v32-nano", KeySelection::kSparse, CacheForm::kInt8Latent, 0},
      {"v32-nano", KeySelection::kDense, CacheForm::kF32, 0},
      {"v32-nano", KeySelection::kDense, CacheForm::kFp8, 0},
      {"v3-tiny", KeySelection::kDense, CacheForm::kBF16, 1},
      {"glm-dsa-tiny", KeySelection::kSparse, CacheForm::kF32, 0},
  };
  for (const Case& k : cases) {
    CAPTURE(k.family);
    const ModelConfig c = family_config(k.family);
    Machine m;
    const Model model = make_model(m, c);
    Folder folder;
    const EngineOptions plain{.num_drafts = c.num_nextn_predict_layers > 0 ? k.num_drafts : 0,
                              .prefix_cache = false,
                              .record_routing = true,
                              .selection = k.selection,
                              .cache = k.cache};
    EngineOptions kept = plain;
    kept.prefix_cache = true;
    kept.store = PrefixStoreOptions{.folder = folder.path, .owner = "a model"};
    const Ids text = random_tokens(c, 200, 1);
    {
      Engine first(m.ctx, model, kept);
      run_all(first, {request_after(c, text, 200, 2)});
      CHECK(first.store()->stats().num_written == 3);
    }
    for (const int64_t cut : {1, 63, 64, 65, 100, 127, 128, 150, 191, 192, 200}) {
      CAPTURE(cut);
      const Request r = request_after(c, text, cut, 10 + static_cast<uint64_t>(cut));
      Engine computing(m.ctx, model, plain);
      const Outcome want = run_all(computing, {r})[0];
      Engine restoring(m.ctx, model, kept);
      const Outcome got = run_all(restoring, {r})[0];
      CHECK(got == want);
      CHECK(got.routing->experts == want.routing->experts);
      CHECK(got.routing->selection == want.routing->selection);
      CHECK(restoring.store()->stats().num_read == cut / 64);
      CHECK(restoring.stats().num_reused_tok == cut / 64 * 64);
      // Again, from memory: rows of the page that the first request has not filled too.
      CHECK(run_all(restoring, {r})[0] == want);
      CHECK(restoring.stats().num_reused_tok == cut / 64 * 64 + cut + 2);
      CHECK(restoring.store()->take_warnings().empty());
    }
  }
}

// A model of its own with a folder that holds the two pages of `text`.
struct Fixture {
  ModelConfig c = family_config("v32-nano");
  Machine m;
  Model model = make_model(m, c);
  Folder folder;
  Ids text = random_tokens(c, 128, 1);
  Request request = request_after(c, text, 128, 3);
  Outcome want;

  Fixture() {
    Engine engine(m.ctx, model, options());
    want = run_all(engine, {request})[0];
    REQUIRE(engine.store()->stats().num_pages == 2);
  }
  EngineOptions options() const {
    return {.store = PrefixStoreOptions{.folder = folder.path, .owner = "a model"}};
  }
  // Pages read, and the warnings; the outcome is right in any case.
  std::pair<int64_t, std::vector<std::string>> restart(const EngineOptions& o) {
    Engine engine(m.ctx, model, o);
    CHECK(run_all(engine, {request})[0] == want);
    return {engine.store()->stats().num_read, engine.store()->take_warnings()};
  }
  std::string file_of_page(size_t i) const {
    const PrefixStore store(
        {.folder = folder.path, .owner = "a model\ncache f32, sparse attention"});
    PageKey key = store.root();
    for (size_t p = 0; p <= i; ++p) key = page_key(key, std::span(text).subspan(64 * p, 64));
    return folder.path + "/" + key + ".fmpage";
  }
};

TEST_CASE("keys of other weights, numbers or attention are not taken") {
  Fixture f;
  CHECK(f.restart(f.options()).first == 2);
  EngineOptions o = f.options();
  o.store->owner = "another model";
  CHECK(f.restart(o).first == 0);
  o = f.options();
  o.record_routing = true;
  CHECK(f.restart(o).first == 0);
  for (const auto change : {+[](EngineOptions& e) { e.cache = CacheForm::kBF16; },
                            +[](EngineOptions& e) { e.selection = KeySelection::kDense; }}) {
    o = f.options();
    change(o);
    Engine engine(f.m.ctx, f.model, o);
    run_all(engine, {f.request});
    CHECK(engine.store()->stats().num_read == 0);
    CHECK(engine.store()->stats().num_written == 2);
  }
}

TEST_CASE("after a change of the weights nothing is read or written") {
  Fixture f;
  Engine engine(f.m.ctx, f.model, f.options());
  engine.weights_changed(2);
  CHECK(engine.store() == nullptr);
  CHECK(run_all(engine, {f.request})[0] == f.want);
}

TEST_CASE("a damaged page is passed over with a warning and written anew") {
  Fixture f;
  const std::string file = f.file_of_page(1);
  const std::string good = read_file(file);
  const auto check = [&](const std::string& bytes, const char* warning) {
    write_file_atomic(file, bytes);
    const auto [num_read, warnings] = f.restart(f.options());
    CHECK(num_read == 1);
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].find(warning) != std::string::npos);
    CHECK(read_file(file) == good);
  };
  check("", "another file");
  check("{}", "another file");
  check(good.substr(0, good.size() - 8), "bytes");
  check(good + "12345678", "bytes");
  check(read_file(f.file_of_page(0)), "text and model");
  std::string bytes = good;
  bytes[250] = static_cast<char>(bytes[250] + 1);  // of the tokens
  check(bytes, "text and model");
  for (size_t at = 500; at < good.size(); at += good.size() / 7) {
    bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 16);
    check(bytes, "checksum");
  }
}

TEST_CASE("files that are none of the cache's stay, unfinished ones of killed processes go") {
  Fixture f;
  const std::string left = f.file_of_page(0) + ".tmp.1.1", begun = f.file_of_page(0) + ".tmp.1.2";
  write_file_atomic(f.folder.path + "/notes.txt", "hello");
  write_file_atomic(begun, "half a page");
  write_file_atomic(left, "half a page");
  fs::last_write_time(left, fs::file_time_type::clock::now() - std::chrono::minutes(2));
  const auto [num_read, warnings] = f.restart(f.options());
  CHECK(num_read == 2);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("1 files are not of a prefix cache, notes.txt") != std::string::npos);
  CHECK(file_exists(f.folder.path + "/notes.txt"));
  CHECK(file_exists(begun));
  CHECK(!file_exists(left));
}

TEST_CASE("beyond its limit the folder loses the ends of what was not used for longest") {
  Fixture f;
  const auto page_bytes = static_cast<int64_t>(file_size(f.file_of_page(0)));
  EngineOptions o = f.options();
  o.store->limit_bytes = 4 * page_bytes + 8;
  Engine engine(f.m.ctx, f.model, o);
  const auto texts = [&](uint64_t seed) {
    Request r = request_after(f.c, random_tokens(f.c, 128, seed), 128, seed);
    run_all(engine, {r});
  };
  texts(20);
  CHECK(engine.store()->stats().num_pages == 4);
  CHECK(run_all(engine, {f.request})[0] == f.want);  // used again: now text 20 is the oldest
  run_all(engine, {request_after(f.c, random_tokens(f.c, 64, 21), 64, 21)});
  CHECK(engine.store()->stats().num_pages == 4);
  CHECK(engine.store()->stats().size_bytes == 4 * page_bytes);
  CHECK(file_exists(f.file_of_page(1)));
  CHECK(f.folder.files().size() == 4);
  run_all(engine, {f.request});
  texts(22);  // takes the rest of text 20 and the page of 21
  CHECK(file_exists(f.file_of_page(1)));
  texts(23);
  CHECK(f.folder.files().size() == 4);
  CHECK(!file_exists(f.file_of_page(1)));
  // A smaller limit holds from the start.
  o.store->limit_bytes = page_bytes;
  Engine small(f.m.ctx, f.model, o);
  CHECK(f.folder.files().size() == 1);
}

TEST_CASE("a folder that takes no more pages is a warning") {
  Fixture f;
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = before;
  limit.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &limit);
  EngineOptions o = f.options();
  o.store->owner = "another model";
  const auto [num_read, warnings] = f.restart(o);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  CHECK(num_read == 0);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("no more pages are kept") != std::string::npos);
  CHECK(f.folder.files().size() == 2);  // nothing half written is left
}

TEST_CASE("pages that memory has no room for come back from the folder") {
  Fixture f;
  EngineOptions o = f.options();
  o.num_pages = 3;
  Engine engine(f.m.ctx, f.model, o);
  for (uint64_t seed = 30; seed < 33; ++seed) {
    run_all(engine, {request_after(f.c, random_tokens(f.c, 128, seed), 20, seed)});
    run_all(engine, {request_after(f.c, random_tokens(f.c, 128, seed), 128, seed)});
    CHECK(run_all(engine, {f.request})[0] == f.want);
  }
  CHECK(engine.store()->stats().num_read >= 6);
}

TEST_CASE("a folder that cannot be is an error") {
  Fixture f;
  EngineOptions o = f.options();
  o.store->folder = f.file_of_page(0) + "/inside";
  CHECK_THROWS_AS(Engine(f.m.ctx, f.model, o), Error);
}

}  // namespace
}  // namespace fathom
