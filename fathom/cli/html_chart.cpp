// Charts as SVG. A chart is drawn in a fixed box of user units and scaled by the browser.
#include "fathom/cli/html_chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace fathom {
namespace {

constexpr double kWidth = 640, kHeight = 300;
constexpr double kLeft = 54, kRight = 20, kTop = 16, kBottom = 40;
constexpr size_t kColors = 8;     // --c0 .. --c7 of the style sheet
constexpr size_t kBuckets = 420;  // a thinned line keeps the extremes of this many stretches

bool is_log(Scale scale) { return scale != Scale::kLinear; }

bool drawable(double value, Scale scale) {
  return std::isfinite(value) && (!is_log(scale) || value > 0);
}

double unscale(double value, Scale scale) { return is_log(scale) ? std::log10(value) : value; }

struct Axis {
  Scale scale = Scale::kLinear;
  double low = 0, high = 1;           // of the data
  double from = 0, to = 1;            // user units
  double place(double value) const {  // value -> user unit
    const double a = unscale(low, scale), b = unscale(high, scale);
    return from + (to - from) * (unscale(value, scale) - a) / (b - a);
  }
};

Axis make_axis(const std::vector<ChartLine>& lines, bool vertical, Scale scale, double from,
               double to) {
  Axis axis{.scale = scale, .low = HUGE_VAL, .high = -HUGE_VAL, .from = from, .to = to};
  for (const ChartLine& line : lines) {
    for (const double v : vertical ? line.y : line.x) {
      if (!drawable(v, scale)) continue;
      axis.low = std::min(axis.low, v);
      axis.high = std::max(axis.high, v);
    }
  }
  if (axis.low > axis.high) axis.low = is_log(scale) ? 1 : 0, axis.high = axis.low + 1;
  if (axis.low == axis.high) {  // a single value lies in the middle
    const double pad = axis.low == 0 ? 1 : std::abs(axis.low) / 2;
    axis.low -= pad;
    axis.high += pad;
  } else if (vertical) {
    const double span = unscale(axis.high, scale) - unscale(axis.low, scale);
    const double low = unscale(axis.low, scale) - 0.04 * span,
                 high = unscale(axis.high, scale) + 0.04 * span;
    const bool from_zero = !is_log(scale) && axis.low >= 0 && axis.low < 0.3 * axis.high;
    axis.low = from_zero ? 0 : is_log(scale) ? std::pow(10, low) : low;
    axis.high = is_log(scale) ? std::pow(10, high) : high;
  }
  return axis;
}

// Indices of the points to draw: all of a short line, else first, lowest, highest and last of each
// bucket. Points that cannot be drawn are kept as gaps.
std::vector<size_t> thin(const std::vector<double>& y) {
  std::vector<size_t> out;
  if (y.size() <= 2 * kBuckets) {
    for (size_t i = 0; i < y.size(); ++i) out.push_back(i);
    return out;
  }
  for (size_t b = 0; b < kBuckets; ++b) {
    const size_t begin = b * y.size() / kBuckets, end = (b + 1) * y.size() / kBuckets;
    size_t low = begin, high = begin;
    bool gap = false;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(y[i])) {
        gap = true;
        out.push_back(i);
        continue;
      }
      if (!(y[i] >= y[low])) low = i;
      if (!(y[i] <= y[high])) high = i;
    }
    if (!gap || std::isfinite(y[low])) out.push_back(std::min(low, high));
    if (low != high) out.push_back(std::max(low, high));
  }
  if (out.back() != y.size() - 1) out.push_back(y.size() - 1);
  std::ranges::sort(out);
  const auto rest = std::ranges::unique(out);
  out.erase(rest.begin(), rest.end());
  return out;
}

// Mean over the `window` points around each, fewer at the ends; gaps stay gaps.
std::vector<double> running_mean(const std::vector<double>& y, int window) {
  std::vector<double> sum(y.size() + 1), count(y.size() + 1),
      out(y.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < y.size(); ++i) {
    const bool finite = std::isfinite(y[i]);
    sum[i + 1] = sum[i] + (finite ? y[i] : 0);
    count[i + 1] = count[i] + finite;
  }
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t reach = std::min({static_cast<size_t>(window) / 2, i, y.size() - 1 - i});
    const size_t begin = i - reach, end = i + reach + 1;
    if (std::isfinite(y[i])) out[i] = (sum[end] - sum[begin]) / (count[end] - count[begin]);
  }
  return out;
}

// Whether the wiggles of y around its mean are large enough to be seen, so that smoothing helps.
bool is_noisy(const std::vector<double>& y, const std::vector<double>& mean) {
  constexpr double kVisible = 0.004;  // part of the range
  double low = HUGE_VAL, high = -HUGE_VAL, wiggle = 0, count = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(y[i])) continue;
    low = std::min(low, y[i]);
    high = std::max(high, y[i]);
    wiggle += std::abs(y[i] - mean[i]);
    ++count;
  }
  return count > 0 && wiggle / count > kVisible * (high - low);
}

// For each point the number of holes in x up to it: a hole is a step far wider than the usual one,
// where the line stops.
std::vector<int> count_holes(const std::vector<double>& x) {
  constexpr double kWide = 8;
  std::vector<double> widths;
  for (size_t i = 1; i < x.size(); ++i) widths.push_back(x[i] - x[i - 1]);
  std::vector<int> out(x.size());
  if (widths.size() < 16) return out;  // too few to know what is usual
  const auto middle = widths.begin() + static_cast<std::ptrdiff_t>(widths.size() / 2);
  std::ranges::nth_element(widths, middle);
  const double usual = *middle;
  for (size_t i = 1; i < x.size(); ++i) out[i] = out[i - 1] + (x[i] - x[i - 1] > kWide * usual);
  return out;
}

std::string value_text(double value) {
  return std::abs(value) >= 1e4 && std::abs(value) < 1e15 ? fmt::format("{:.0f}", value)
                                                          : fmt::format("{:.4g}", value);
}

struct PathText {
  std::string d;       // SVG path
  std::string values;  // "x:y x:y ", one for each point of d, for the hover script
  std::string dots;
};

PathText trace(const std::vector<double>& x, const std::vector<double>& y, const Axis& xs,
               const Axis& ys, bool dots) {
  PathText out;
  const std::vector<int> holes =
      xs.scale == Scale::kLinear ? count_holes(x) : std::vector<int>(x.size());
  bool pen_down = false;
  int hole = 0;
  for (const size_t i : thin(y)) {
    if (!drawable(x[i], xs.scale) || !drawable(y[i], ys.scale)) {
      pen_down = false;
      continue;
    }
    pen_down = pen_down && holes[i] == hole;
    hole = holes[i];
    const double px = xs.place(x[i]), py = ys.place(y[i]);
    out.d += fmt::format("{}{:.1f},{:.1f}", pen_down ? 'L' : 'M', px, py);
    out.values += fmt::format("{:.6g}:{} ", x[i], value_text(y[i]));
    if (dots) out.dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", px, py);
    pen_down = true;
  }
  return out;
}

std::string grid(const Chart& chart, const Axis& xs, const Axis& ys) {
  std::string out = "<g class=\"grid\">";
  for (const double v : chart_ticks(ys.low, ys.high, ys.scale, 6)) {
    const double y = ys.place(v);
    out += fmt::format(
        "<path d=\"M{:.1f},{:.1f}H{:.1f}\"/><text x=\"{:.1f}\" y=\"{:.1f}\" "
        "class=\"ytick\">{}</text>",
        kLeft, y, kWidth - kRight, kLeft - 6, y + 4, tick_text(v, ys.scale));
  }
  for (const double v : chart_ticks(xs.low, xs.high, xs.scale, 8)) {
    const double x = xs.place(v);
    out += fmt::format(
        "<path d=\"M{:.1f},{:.1f}v4\"/><text x=\"{:.1f}\" y=\"{:.1f}\" class=\"xtick\">{}</text>",
        x, kHeight - kBottom, x, kHeight - kBottom + 16, tick_text(v, xs.scale));
  }
  out += fmt::format("<path class=\"axis\" d=\"M{:.1f},{:.1f}H{:.1f}\"/>", kLeft, kHeight - kBottom,
                     kWidth - kRight);
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"xlabel\">{}</text></g>",
                     (kLeft + kWidth - kRight) / 2, kHeight - 6, html_escape(chart.x_label));
  return out;
}

std::string marks(const Chart& chart, const Axis& xs) {
  std::string out = "<g class=\"mark\">";
  double free_from = 0;  // labels that would cover the one before go a line lower
  double y = kTop - 4;
  for (const ChartMark& m : chart.marks) {
    if (!drawable(m.x, xs.scale) || m.x < xs.low || m.x > xs.high) continue;
    const double x = xs.place(m.x);
    const double width = 6.2 * static_cast<double>(m.label.size());
    y = x < free_from ? y + 11 : kTop - 4;
    const bool to_left = x + width > kWidth - kRight;
    out += fmt::format(
        "<path d=\"M{0:.1f},{1:.1f}V{2:.1f}\"/><text x=\"{3:.1f}\" y=\"{4:.1f}\"{5}>{6}</text>", x,
        kTop - 12, kHeight - kBottom, to_left ? x - 3 : x + 3, y,
        to_left ? " text-anchor=\"end\"" : "", html_escape(m.label));
    free_from = x + width + 6;
  }
  return out + "</g>";
}

size_t color_of(const ChartLine& line, size_t place) {
  return (line.color >= 0 ? static_cast<size_t>(line.color) : place) % kColors;
}

std::string svg(const Chart& chart, Scale y_scale, const char* css_class) {
  const Axis xs = make_axis(chart.lines, false, chart.x_scale, kLeft, kWidth - kRight);
  const Axis ys = make_axis(chart.lines, true, y_scale, kHeight - kBottom, kTop);
  std::string out =
      fmt::format("<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                  css_class, kWidth, kHeight, html_escape(chart.title));
  out += grid(chart, xs, ys) + marks(chart, xs);
  for (size_t i = 0; i < chart.lines.size(); ++i) {
    const ChartLine& line = chart.lines[i];
    const std::vector<double> mean = running_mean(line.y, chart.smooth);
    const bool smoothed = chart.smooth > 1 && is_noisy(line.y, mean);
    const PathText raw = trace(line.x, line.y, xs, ys, chart.points);
    out += fmt::format("<g class=\"line c{}{}\"><title>{}</title>", color_of(line, i),
                       line.color >= 0 || i < kColors ? "" : " dash", html_escape(line.name));
    if (line.faint) {
      out += fmt::format("<path class=\"faint\" d=\"{}\"/></g>\n", raw.d);
      continue;
    }
    if (smoothed) out += fmt::format("<path class=\"faint\" d=\"{}\"/>", raw.d);
    const PathText main = smoothed ? trace(line.x, mean, xs, ys, false) : raw;
    out += fmt::format("<path class=\"main\" data-name=\"{}\" data-v=\"{}\" d=\"{}\"/>{}</g>\n",
                       html_escape(line.name), main.values, main.d, raw.dots);
  }
  return out + fmt::format("<path class=\"cursor\" d=\"M0,{}V{}\" visibility=\"hidden\"/></svg>\n",
                           kTop, kHeight - kBottom);
}

std::string legend(const Chart& chart) {
  std::string out = "<div class=\"legend\">";
  for (size_t i = 0; i < chart.lines.size(); ++i) {
    const ChartLine& line = chart.lines[i];
    if (line.faint) continue;
    const auto bad = std::ranges::count_if(line.y, [](double v) { return !std::isfinite(v); });
    std::optional<double> last;
    for (const double v : line.y)
      if (std::isfinite(v)) last = v;
    out += fmt::format("<span class=\"c{}\"><i></i>{}", color_of(line, i), html_escape(line.name));
    if (last && chart.last_values && !chart.points)
      out += fmt::format(" <b>{}</b>", value_text(*last));
    if (bad > 0) out += fmt::format(" <em>{} not finite</em>", bad);
    out += "</span>";
  }
  return out + "</div>";
}

}  // namespace

std::vector<double> chart_ticks(double low, double high, Scale scale, int about) {
  std::vector<double> out;
  if (!(low < high)) return out;
  if (is_log(scale)) {
    const double base = scale == Scale::kLog2 ? 2 : 10;
    const double decades = std::log(high / low) / std::log(base);
    const double stride = std::max(1.0, std::ceil(decades / about));
    const bool between = scale == Scale::kLog && decades < 3;  // few powers: 2 and 5 as well
    constexpr double kSlack = 1e-9;  // an axis that ends on a power of the base shows it
    for (double e = std::floor(std::log(low) / std::log(base) + kSlack);
         std::pow(base, e) <= high * (1 + kSlack); e += stride) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double v = digit * std::pow(base, e);
        if (v >= low * (1 - kSlack) && v <= high * (1 + kSlack) && (digit == 1 || between))
          out.push_back(v);
      }
    }
    if (out.size() >= 2 || scale == Scale::kLog2) return out;
    out.clear();  // less than a power of ten in all: round numbers read better
  }
  const double raw = (high - low) / about;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double digit : {5.0, 2.0, 1.0})
    if (digit * power >= raw) step = digit * power;
  for (double k = std::ceil(low / step); k * step <= high; ++k)
    out.push_back(k == 0 ? 0 : k * step);
  return out;
}

std::string tick_text(double value, Scale scale) {
  if (scale == Scale::kLog2 && value >= 1024) {
    if (value >= 1048576) return fmt::format("{:.4g}M", value / 1048576);
    return fmt::format("{:.4g}K", value / 1024);
  }
  const double size = std::abs(value);
  if (size >= 1e9) return fmt::format("{:.4g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  return fmt::format("{:.6g}", value);
}

std::string chart_html(const Chart& chart) {
  bool log_possible = false;
  if (chart.log_switch && chart.y_scale == Scale::kLinear) {
    log_possible = true;
    for (const ChartLine& line : chart.lines)
      for (const double v : line.y) log_possible = log_possible && (v > 0 || std::isnan(v));
  }
  std::string out = "<figure>";
  if (log_possible) out += "<label class=\"switch\"><input type=\"checkbox\"> log</label>";
  out += fmt::format(
      "<figcaption>{}{}</figcaption>", html_escape(chart.title),
      chart.y_label.empty() ? "" : fmt::format(" <small>{}</small>", html_escape(chart.y_label)));
  out += legend(chart);
  out += svg(chart, chart.y_scale, "lin");
  if (log_possible) out += svg(chart, Scale::kLog, "log");
  return out + "</figure>\n";
}

}  // namespace fathom
