#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>

#include "fathom/base/file.h"
#include "fathom/cli/command.h"
#include "fathom/train/run_log.h"

namespace fathom {

TEST_CASE("a report holds the stages, tables, curves, texts and configuration of its run") {
  std::string pattern = (std::filesystem::temp_directory_path() / "fathom_report_XXXXXX").string();
  const std::string folder = mkdtemp(pattern.data());
  {
    RunLog log(folder, RunLog::Mode::kCreate);
    log.set_config("kv_lora_rank", "64");
    log.text(1, "stage", "pretrain");
    log.text(1, "stage", "pretrain");  // as after a kill before the first step
    for (int64_t step = 1; step <= 30; ++step) {
      if (step == 21) log.text(step, "stage", "dsa_warmup");
      log.log(step,
              std::vector<Metric>{
                  {"loss/lm", 5.0 / static_cast<double>(step)}, {"loss/mtp", 6.0}, {"rate", 1.0}});
    }
    log.text(30, "sample", "1 < 2 & 3");
    log.cell(30, "Accuracy", "sorting", "dense", "97.5 %");
  }
  const std::string args[] = {"report", folder, "--out", folder + "/page.html"};
  CHECK(run_fathom(args) == kExitOk);
  const std::string page = read_file(folder + "/page.html");
  const auto has = [&](const char* part) { return page.find(part) != std::string::npos; };
  CHECK(has("<td>pretrain</td><td>1</td><td>20</td>"));
  CHECK(page.find("<td>pretrain</td>") == page.rfind("<td>pretrain</td>"));
  CHECK(has("<td>dsa_warmup</td><td>21</td><td>30</td>"));
  CHECK(has("<h2>Accuracy</h2>"));
  CHECK(has("<td>97.5 %</td>"));
  CHECK(has("<pre>1 &lt; 2 &amp; 3</pre>"));
  CHECK(has("<td>kv_lora_rank</td><td>64</td>"));
  CHECK(has("data-name=\"mtp\""));
  CHECK(has("30:0.1667 "));  // the last point of loss/lm
  CHECK(has("</html>"));
  for (const char* outside : {"http:", "https:", "src=", "@import", "url("}) CHECK(!has(outside));
  std::filesystem::remove_all(folder);
}

}  // namespace fathom
