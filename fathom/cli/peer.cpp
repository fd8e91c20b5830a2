#include "fathom/cli/peer.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "fathom/base/error.h"
#include "fathom/cli/shell.h"

namespace fathom {
namespace {

using Cells = std::vector<std::string_view>;

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == text.npos ? std::string_view() : text.substr(first, last - first + 1);
}

// Takes a number from the front of the text; what follows stays.
template <class T>
std::optional<T> take_number(std::string_view& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take_word(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

// "| a | b |" gives a and b; a line that is no row of a table, nothing.
Cells cells_of(std::string_view line) {
  Cells cells;
  line = trimmed(line);
  if (!take_word(line, "|")) return cells;
  for (size_t at; (at = line.find('|')) != line.npos; line.remove_prefix(at + 1))
    cells.push_back(trimmed(line.substr(0, at)));
  return cells;
}

// The rows below a header.
class Table {
 public:
  explicit Table(Cells header) : header_(std::move(header)) {}

  void read(const Cells& row, std::vector<PeerFigure>* out) {
    row_ = row;
    const std::optional<double> rate = number<double>("t/s");
    if (rate) return add(figure_of_test(cell("test")), *rate, out);
    const std::optional<int64_t> prompt = number<int64_t>("PP"), keys = number<int64_t>("N_KV");
    if (!prompt || !keys) return;
    // A batch fills its own cache with the prompts and counts it in the end, a sweep says how full
    // it was before.
    const std::optional<int64_t> batch = number<int64_t>("B");
    PeerFigure prefill{.prefill = true, .tokens = *prompt, .depth = batch ? 0 : *keys};
    PeerFigure decode{.depth = batch ? *prompt : *keys};
    prefill.sequences = decode.sequences = batch.value_or(1);
    add(prefill, number<double>("S_PP t/s").value_or(0), out);
    add(decode, number<double>("S_TG t/s").value_or(0), out);
  }

 private:
  static std::optional<PeerFigure> figure_of_test(std::string_view test) {
    PeerFigure f{.prefill = take_word(test, "pp")};
    if (!f.prefill && !take_word(test, "tg")) return std::nullopt;
    const std::optional<int64_t> tokens = take_number<int64_t>(test);
    if (!tokens) return std::nullopt;
    if (f.prefill) f.tokens = *tokens;
    if (take_word(test, " @ d") || (!f.prefill && take_word(test, "@pp"))) {
      const std::optional<int64_t> depth = take_number<int64_t>(test);
      if (!depth) return std::nullopt;
      f.depth = *depth;
    }
    if (!test.empty()) return std::nullopt;  // "pp512+tg128": both together
    return f;
  }

  static void add(std::optional<PeerFigure> f, double rate, std::vector<PeerFigure>* out) {
    if (!f || !std::isfinite(rate) || rate <= 0) return;
    f->tokens_per_s = rate;
    out->push_back(*f);
  }

  std::string_view cell(std::string_view name) const {
    const auto at = std::find(header_.begin(), header_.end(), name);
    return at == header_.end() ? std::string_view()
                               : row_[static_cast<size_t>(at - header_.begin())];
  }

  template <class T>
  std::optional<T> number(std::string_view name) const {
    std::string_view text = cell(name);  // "81.20 +- 0.35" has more behind it
    return take_number<T>(text);
  }

  Cells header_, row_;
};

// "prefill of 512 at depth 0", for messages.
std::string describe(const PeerFigure& f) {
  std::string text = f.prefill ? fmt::format("prefill of {}", f.tokens) : "decode";
  if (f.sequences > 1) text += fmt::format(", {} sequences", f.sequences);
  return f.depth < 0 ? text : text + fmt::format(" at depth {}", f.depth);
}

// So much of the end as says what went wrong.
std::string last_lines(std::string_view text) {
  constexpr size_t kMost = 600;
  text = trimmed(text.substr(text.size() - std::min(text.size(), kMost)));
  return text.empty() ? "nothing" : std::string(text);
}

}  // namespace

std::vector<PeerFigure> parse_peer(std::string_view text) {
  constexpr std::string_view kMark = "tokens/s median ";
  std::vector<PeerFigure> out;
  std::optional<Table> table;
  size_t columns = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const Cells cells = cells_of(line);
    const auto has = [&](std::string_view name) {
      return std::find(cells.begin(), cells.end(), name) != cells.end();
    };
    if ((has("test") && has("t/s")) || (has("PP") && has("S_TG t/s"))) {
      table.emplace(cells);
      columns = cells.size();
    } else if (table && !cells.empty() && cells.size() == columns) {
      table->read(cells, &out);
    } else if (const size_t at = line.find(kMark); at != line.npos) {
      line.remove_prefix(at + kMark.size());
      const double rate = take_number<double>(line).value_or(0);
      if (std::isfinite(rate) && rate > 0) out.push_back({.depth = -1, .tokens_per_s = rate});
    }
  }
  return out;
}

std::vector<PeerFigure> run_peer(const std::string& command, double limit_s) {
  const CommandOutput got = run_command(fmt::format("{{ {}\n}} 2>&1", command), "", limit_s);
  const char* hint = "run the command by itself";
  if (got.timed_out)
    throw Error(Code::kTimeout,
                fmt::format("--peer: expected its end within {} s, stopped it after \"{}\"",
                            limit_s, last_lines(got.text)),
                "--peer-seconds gives it more");
  if (got.status != 0)
    throw Error(Code::kInvalidArgument,
                fmt::format("--peer: expected exit status 0, came {} after \"{}\"", got.status,
                            last_lines(got.text)),
                hint);
  std::vector<PeerFigure> figures = parse_peer(got.text);
  if (figures.empty())
    throw Error(Code::kInvalidArgument,
                fmt::format("--peer: expected \"tokens/s median N\" or a table of llama-bench in "
                            "its output, came \"{}\"",
                            last_lines(got.text)),
                hint);
  return figures;
}

std::string fill_in(std::string command, const PeerRow& row) {
  for (const auto& [mark, value] : {std::pair<std::string, int64_t>{"{threads}", row.threads},
                                    {"{depth}", row.depth},
                                    {"{prefill}", row.prefill},
                                    {"{sequences}", row.sequences}})
    for (size_t at = 0; (at = command.find(mark, at)) != std::string::npos;)
      command.replace(at, mark.size(), std::to_string(value));
  return command;
}

void pick_figures(const std::vector<PeerFigure>& figures, const PeerRow& row, PeerRates* rates) {
  std::string found;
  bool any = false;
  for (const PeerFigure& f : figures) {
    found += (found.empty() ? "" : "; ") + describe(f);
    std::vector<double>* of = nullptr;
    if (f.prefill)
      of = f.tokens == row.prefill && f.sequences == 1 ? &rates->prefill : nullptr;
    else if (f.sequences == 1)
      of = &rates->decode;
    else if (f.sequences == row.sequences)
      of = &rates->sequences;
    if (!of || (f.depth >= 0 && f.depth != row.depth)) continue;
    of->push_back(f.tokens_per_s);
    any = true;
  }
  if (!any)
    throw Error(Code::kInvalidArgument,
                fmt::format("--peer: expected decode or prefill of {} at depth {}, found {}",
                            row.prefill, row.depth, found),
                "{depth}, {prefill} and {sequences} in the command stand for the row's");
}

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace fathom
