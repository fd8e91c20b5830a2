// Any text is the value of an option or an Error; the value's own text gives it again. A line of
// the input is NAME=TEXT, as on a command line. Amounts of memory are read besides.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/options.h"
#include "fathom/model/memory_plan.h"

namespace {

struct Values {
  bool flag = false;
  int64_t count = 0;
  double rate = 0;
  std::string word;
  std::vector<std::string> words;
  std::vector<double> rates;

  fathom::OptionSet fields() {
    fathom::OptionSet o;
    o.add("flag", &flag, "");
    o.add("count", &count, "");
    o.add("rate", &rate, "");
    o.add("word", &word, "");
    o.add("words", &words, "");
    o.add("rates", &rates, "");
    return o;
  }
};

void try_line(std::string_view line, fathom::OptionSet* options) {
  const size_t equals = line.find('=');
  const std::string_view text = equals == line.npos ? "" : line.substr(equals + 1);
  try {
    options->set(line.substr(0, equals), text);
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
  try {
    const int64_t bytes = fathom::parse_bytes(std::string(text));
    FM_CHECK(bytes >= 1, "{} bytes", bytes);
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  Values values, again;
  fathom::OptionSet options = values.fields(), same = again.fields();
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    try_line(rest.substr(0, end), &options);
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  for (const auto& [name, text] : options.values()) same.set(name, text);
  FM_CHECK(options.values() == same.values(), "{} bytes of input", size);
  return 0;
}
