#include "fathom/cli/golden_text.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/chat_template.h"
#include "fathom/text/tokenizer.h"

namespace fathom {

TextGoldenReport check_golden_text(const std::string& file, const GoldenTextOptions& options) {
  const std::string text = read_file(file);
  const std::string first = text.substr(0, text.find('\n'));
  const Json row = Json::parse(first, file + ": line 1");
  if (row.find("ids")) {
    if (options.tokenizer.empty())
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected --tokenizer for tokenizer cases, found none", file),
                  "name the tokenizer.json that the ids belong to");
    return check_tokenizer_golden(file, Tokenizer::load(options.tokenizer));
  }
  if (!row.find("mode"))
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected lines with \"ids\" or \"mode\", found neither", file),
                "is this a file of tokenizer cases, encodings or completions?");
  const std::string& source = options.encoding_source;
  return check_encoding_golden(file, source.empty()
                                         ? own_chat_template()
                                         : chat_template_from_python(read_file(source), source));
}

}  // namespace fathom
