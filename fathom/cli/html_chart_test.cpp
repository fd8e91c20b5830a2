#include "fathom/cli/html_chart.h"

#include <doctest/doctest.h>

#include <cmath>

#include "fathom/cli/progress.h"

namespace fathom {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++n;
  return n;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The points of the first main path, as the hover script reads them.
std::string values_of(const std::string& html) {
  const size_t at = html.find("data-v=\"") + 8;
  return html.substr(at, html.find('"', at) - at);
}

}  // namespace

TEST_CASE("ticks are round numbers inside the range") {
  CHECK(chart_ticks(0, 10, Scale::kLinear, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(chart_ticks(-1, 1, Scale::kLinear, 4).size() == 5);
  CHECK(chart_ticks(1, 10000, Scale::kLog, 6) == std::vector<double>{1, 10, 100, 1000, 10000});
  CHECK(chart_ticks(1024, 8192, Scale::kLog2, 8) == std::vector<double>{1024, 2048, 4096, 8192});
  CHECK(chart_ticks(1e-30, 1, Scale::kLog, 6).size() <= 7);
  CHECK(chart_ticks(1.01, 1.02, Scale::kLog, 5).size() >= 3);  // less than a decade
  CHECK(chart_ticks(3, 3, Scale::kLinear, 5).empty());
  CHECK(tick_text(65536, Scale::kLog2) == "64K");
  CHECK(tick_text(12500, Scale::kLinear) == "12.5k");
  CHECK(tick_text(0.001, Scale::kLog) == "0.001");
}

TEST_CASE("a chart shows every point of a short line and counts what is not finite") {
  const Chart chart{.title = "loss", .lines = {{"lm", {1, 2, 3, 4}, {4, NAN, 2, 1}}}};
  const std::string html = chart_html(chart);
  CHECK(values_of(html) == "1:4 3:2 4:1 ");
  CHECK(has(html, "1 not finite"));
  CHECK(count(html, "<svg") == 1);
  CHECK(!has(html, "nan"));
}

TEST_CASE("the log switch appears only where all values allow it") {
  Chart chart{.log_switch = true, .lines = {{"a", {1, 2}, {1, 10}}}};
  CHECK(count(chart_html(chart), "<svg") == 2);
  chart.lines[0].y[0] = 0;
  CHECK(count(chart_html(chart), "<svg") == 1);
}

TEST_CASE("degenerate charts are drawn without nonsense numbers") {
  for (const Scale scale : {Scale::kLinear, Scale::kLog, Scale::kLog2}) {
    for (const std::vector<double>& y :
         {std::vector<double>{}, {5}, {0, 0}, {-1, -1}, {NAN, NAN}, {HUGE_VAL, 1}}) {
      Chart chart{.x_scale = scale,
                  .y_scale = scale,
                  .log_switch = true,
                  .smooth = 3,
                  .lines = {{"a", {}, y}}};
      for (size_t i = 0; i < y.size(); ++i) chart.lines[0].x.push_back(static_cast<double>(i));
      const std::string html = chart_html(chart);
      CHECK(!has(html, "nan,"));
      CHECK(!has(html, ",nan"));
      CHECK(!has(html, "inf"));
      CHECK(!has(html, "-nan"));
    }
  }
}

TEST_CASE("a long line is thinned but keeps its extremes and its ends") {
  ChartLine line{"a", {}, {}};
  for (int i = 0; i < 100000; ++i) {
    line.x.push_back(i);
    line.y.push_back(std::sin(i * 0.01));
  }
  line.y[54321] = 77;
  line.y[12345] = -33;
  const std::string values = values_of(chart_html({.lines = {line}}));
  CHECK(has(values, "54321:77 "));
  CHECK(has(values, "12345:-33 "));
  CHECK(has(values, "99999:"));
  CHECK(values.starts_with("0:"));
  CHECK(count(values, " ") < 1500);
}

TEST_CASE("a line stops at a hole in x") {
  ChartLine line{"a", {}, {}};
  for (int i = 0; i < 40; ++i) {
    line.x.push_back(i < 20 ? i : i + 500);
    line.y.push_back(i);
  }
  const std::string html = chart_html({.lines = {line}});
  const size_t path = html.find(" d=\"M", html.find("data-v"));
  CHECK(count(html.substr(path, html.find('"', path + 4) - path), "M") == 2);
}

TEST_CASE("text from outside cannot break the page") {
  CHECK(html_escape("<a href=\"x\">&\n") == "&lt;a href=&quot;x&quot;&gt;&amp;\n");
  CHECK(html_escape("caf\xC3\xA9") == "caf\xC3\xA9");
  CHECK(html_escape("\xC3(") == "&#xFFFD;(");
  CHECK(html_escape("\xED\xA0\x80") == "&#xFFFD;&#xFFFD;&#xFFFD;");  // a surrogate
  CHECK(html_escape(std::string("a\0b", 3)) == "a&#xFFFD;b");
  const std::string page = html_page("t", table_html({"a"}, {{"<script>"}}));
  CHECK(count(page, "<script>") == 1);
  CHECK(!has(page, "http"));
}

TEST_CASE("the progress line says what is known and nothing else") {
  CHECK(progress_line({.what = "pretrain", .done = 120}) == "pretrain 120");
  CHECK(progress_line({.what = "pretrain",
                       .done = 120,
                       .total = 500,
                       .rate = 11900,
                       .unit = "tok",
                       .detail = "loss 2.314",
                       .left_s = 192,
                       .memory_bytes = 1288490189}) ==
        "pretrain 120/500 24% | 11.9k tok/s | loss 2.314 | 3:12 left | 1.2 GiB");
  CHECK(human_duration(3729) == "1:02:09");
  CHECK(human_duration(59.4) == "59 s");
}

TEST_CASE("off a terminal progress ends with one plain line") {
  FILE* out = std::tmpfile();
  REQUIRE(out);
  {
    Progress progress("work", 3, "step", out);
    for (int i = 0; i <= 3; ++i) progress.update(i, i, "ok");
  }
  std::rewind(out);
  char line[256] = "";
  REQUIRE(std::fgets(line, sizeof line, out));
  CHECK(std::string(line).starts_with("work 3/3 100% |"));
  CHECK(!has(line, "\x1b"));
  CHECK(!std::fgets(line, sizeof line, out));
  std::fclose(out);
}

}  // namespace fathom
