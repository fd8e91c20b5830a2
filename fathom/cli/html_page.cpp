// The frame around charts and tables: style sheet, hover script, escaping.
#include <fmt/core.h>

#include <cmath>

#include "fathom/cli/html_chart.h"

namespace fathom {
namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #6b7076; --line: #e2e3e5;
  --c0: #2563eb; --c1: #d9730d; --c2: #0f9960; --c3: #d1345b; --c4: #7c4ddb; --c5: #0a8fa8; --c6: #8a6d1d; --c7: #5c6470; }
@media (prefers-color-scheme: dark) { :root { --bg: #15171a; --card: #1d2024; --ink: #e6e7e9; --soft: #9aa0a8;
  --line: #33373d; --c0: #79a8ff; --c1: #ffab5e; --c2: #5bd6a0; --c3: #ff8aa5; --c4: #bd9dff; --c5: #5fd0e6;
  --c6: #d9bd62; --c7: #a7b0bc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 1360px; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 34px 0 12px; }
h3 { font-size: 14px; margin: 20px 0 6px; color: var(--soft); }
p.sub { color: var(--soft); margin: 0 0 18px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
.cards b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 16px; }
figure { position: relative; margin: 0; padding: 12px 14px 6px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
figcaption { font-weight: 600; padding-right: 60px; }
figcaption small { font-weight: 400; color: var(--soft); }
.switch { position: absolute; top: 12px; right: 14px; font-size: 12px; color: var(--soft); cursor: pointer; }
.switch input { vertical-align: -2px; }
figure svg { display: block; width: 100%; height: auto; }
figure svg.log, figure:has(input:checked) svg.lin { display: none; }
figure:has(input:checked) svg.log { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0 6px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: 4px;
  background: var(--c); border-radius: 2px; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.legend em { color: var(--c3); font-style: normal; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
svg text { fill: var(--soft); font: 11px system-ui, "DejaVu Sans", sans-serif; }
.grid path { stroke: var(--line); fill: none; } .grid .axis { stroke: var(--soft); }
.ytick { text-anchor: end; } .xtick, .xlabel { text-anchor: middle; }
.line path { stroke: var(--c); fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line circle { fill: var(--c); } .line.dash path { stroke-dasharray: 5 4; }
.line .faint { opacity: .28; stroke-width: 1; }
.mark path { stroke: var(--soft); stroke-dasharray: 2 4; fill: none; opacity: .7; }
.cursor { stroke: var(--soft); fill: none; }
.tip { position: absolute; pointer-events: none; background: var(--bg); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 9px; font-size: 12px; white-space: nowrap; z-index: 2;
  box-shadow: 0 2px 8px #0003; font-variant-numeric: tabular-nums; }
.tip i { display: inline-block; width: 8px; height: 8px; border-radius: 4px; margin-right: 6px; background: var(--c); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line); font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
td:first-child:last-child, .left td, .left th { text-align: left; }
.figures td, .figures th { white-space: nowrap; padding: 5px 9px; }
pre { margin: 0 0 12px; padding: 10px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--soft); }
)css";

// Shows the values of all lines of a chart nearest to the pointer. Points are read back from the
// paths: the k-th M or L command of `d` belongs to the k-th pair of `data-v`.
constexpr const char* kScript = R"js(
for (const svg of document.querySelectorAll('figure svg')) {
  const figure = svg.closest('figure'), cursor = svg.querySelector('.cursor');
  let lines = null, tip = null;
  const read = () => [...svg.querySelectorAll('path.main')].map(path => {
    const values = path.dataset.v.trim().split(' ').map(p => p.split(':'));
    const places = (path.getAttribute('d') || '').split(/[ML]/).slice(1).map(p => parseFloat(p));
    return {name: path.dataset.name, color: path.parentNode.classList[1], values, places};
  }).filter(l => l.places.length);
  const leave = () => { cursor.setAttribute('visibility', 'hidden'); if (tip) tip.remove(); tip = null; };
  svg.addEventListener('pointerleave', leave);
  svg.addEventListener('pointermove', event => {
    lines = lines || read();
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let nearest = null, distance = 30;
    for (const l of lines) for (const p of l.places)
      if (Math.abs(p - at) < distance) { distance = Math.abs(p - at); nearest = p; }
    if (nearest === null) return leave();
    cursor.setAttribute('transform', 'translate(' + nearest + ',0)');
    cursor.setAttribute('visibility', 'visible');
    if (!tip) { tip = document.createElement('div'); tip.className = 'tip'; figure.append(tip); }
    tip.textContent = '';
    for (const l of lines) {
      let best = 0;
      l.places.forEach((p, i) => { if (Math.abs(p - nearest) < Math.abs(l.places[best] - nearest)) best = i; });
      if (Math.abs(l.places[best] - nearest) > 12) continue;
      const row = document.createElement('div'), dot = document.createElement('i');
      row.className = l.color;
      row.append(dot, l.name + ' ' + l.values[best][1] + ' at ' + l.values[best][0]);
      tip.append(row);
    }
    const frame = figure.getBoundingClientRect(), x = event.clientX - frame.left;
    tip.style.left = (x + 16 + tip.offsetWidth > frame.width ? x - 16 - tip.offsetWidth : x + 16) + 'px';
    tip.style.top = (event.clientY - frame.top + 12) + 'px';
  });
}
)js";

// Length of the valid UTF-8 sequence at the start of `text`, 0 when it is not one.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool outside = (lead == 0xED && byte(1) > 0x9F) || (lead == 0xF4 && byte(1) > 0x8F);
  return overlong || outside ? 0 : length;
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char c = text[0];
    const bool control = length == 1 && (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) &&
                         c != '\n' && c != '\t';
    if (length == 0 || control) {
      out += "&#xFFFD;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string table_html(const std::vector<std::string>& header,
                       const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table><thead><tr>";
  for (const std::string& h : header) out += fmt::format("<th>{}</th>", html_escape(h));
  out += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += fmt::format("<td>{}</td>", html_escape(cell));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}</style></head>\n<body>\n{}<script>{}</script>\n</body></"
      "html>\n",
      html_escape(title), kStyle, body, kScript);
}

}  // namespace fathom
