#include "fathom/text/golden.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/tokenizer.h"

namespace fathom {
namespace {

std::string compare_tokens(const Json& row, const Tokenizer& tokenizer) {
  const std::string& text = row.at("text").as_string();
  std::vector<int32_t> want;
  for (const Json& id : row.at("ids").items()) want.push_back(static_cast<int32_t>(id.as_int()));
  const std::vector<int32_t> got = tokenizer.encode(text, AddedTokens::kParse);
  if (got != want)
    return fmt::format("{}: expected ids [{}], got [{}]", json_quote(text), fmt::join(want, " "),
                       fmt::join(got, " "));
  const std::string back = tokenizer.decode(want);
  if (back != text)
    return fmt::format("expected the text {}, decoded {}", json_quote(text), json_quote(back));
  return "";
}

}  // namespace

GoldenReport check_tokenizer_golden(const std::string& file, const Tokenizer& tokenizer) {
  GoldenReport report;
  for (const Json& row : Json::parse_lines(read_file(file), file)) {
    const size_t line = ++report.num_cases;
    std::string message;
    try {
      message = compare_tokens(row, tokenizer);
    } catch (const Error& e) {
      message = e.message();
    }
    if (!message.empty()) report.failures.push_back({line, message});
  }
  return report;
}

}  // namespace fathom
