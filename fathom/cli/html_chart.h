// Pages with line charts, made here as inline SVG: no libraries, no outside resources, light and
// dark.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

enum class Scale : uint8_t {
  kLinear,
  kLog,   // ticks at powers of ten; points that are not positive are left out
  kLog2,  // ticks at powers of two, 65536 is written 64K
};

struct ChartLine {
  std::string name;
  std::vector<double> x,
      y;           // x ascending; y that is not finite leaves a gap and is counted in the legend
  int color = -1;  // of the eight; negative: by its place among the lines
  bool faint = false;  // thin, not in the legend: one of many runs behind their mean
};

struct ChartMark {  // a vertical line with a word at its top
  double x = 0;
  std::string label;
};

struct Chart {
  std::string title, x_label, y_label;
  Scale x_scale = Scale::kLinear;
  Scale y_scale = Scale::kLinear;
  bool log_switch = false;  // offer to show y on a log scale, where all values allow it
  int smooth = 0;           // > 1: each line faint, the mean of this many points around over it
  bool points = false;      // a dot at every point
  bool last_values = true;  // in the legend
  std::vector<ChartLine> lines;
  std::vector<ChartMark> marks;
};

// A <figure> with legend, for the body of an html_page. Long lines are thinned to what pixels can
// show, extremes kept.
std::string chart_html(const Chart& chart);

// A complete page: style, the hover script, `body` as it is.
std::string html_page(std::string_view title, std::string_view body);

// <table>: the first column left, others right aligned. Cells are escaped.
std::string table_html(const std::vector<std::string>& header,
                       const std::vector<std::vector<std::string>>& rows);

std::string html_escape(
    std::string_view text);  // also replaces invalid UTF-8 and control characters

// Ascending round numbers that cover [low, high] well: for axes. Exposed for tests.
std::vector<double> chart_ticks(double low, double high, Scale scale, int about);
std::string tick_text(double value, Scale scale);

}  // namespace fathom
