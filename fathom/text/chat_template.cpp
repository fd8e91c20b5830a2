#include "fathom/text/chat_template.h"

#include <fmt/format.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/sha256.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

// SHA-256 of the preamble that DeepSeek-V3.2 was published with.
constexpr std::string_view kKnownPreamble =
    "963a72ee9be43f07d21bec2348ed2d7e45185e4b502f2a4da35a540299dc2b03";

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += by.size())
    text.replace(at, what.size(), by);
}

// The part of a format string before `placeholder`, with the marker's name filled in and doubled
// braces undone.
std::string before(const std::string& format, std::string_view placeholder) {
  std::string text = format.substr(0, format.find(placeholder));
  replace_all(text, "{dsml_token}", kDsmlText);
  replace_all(text, "{{", "{");
  replace_all(text, "}}", "}");
  return text;
}

}  // namespace

ChatTemplate chat_template_from_python(std::string_view source, const std::string& what) {
  ChatTemplate out;
  out.source = "checkpoint";
  for (const std::string& text : python_string_constants(source)) {
    if (text.starts_with("## Tools") && text.find("{tool_schemas}") != text.npos)
      out.tools_preamble = before(text, "{tool_schemas}");
    if (text.starts_with("## Response Format") && text.find("{schema}") != text.npos)
      out.response_format_preamble = before(text, "{schema}");
  }
  if (out.tools_preamble.empty() || out.response_format_preamble.empty())
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected string constants that start with \"## Tools\" and "
                            "\"## Response Format\", found {}",
                            what, out.tools_preamble.empty() ? "no tools block" : "no format"),
                "remove the file to use fathom's own wording");
  if (const std::string sha = sha256_hex(out.tools_preamble); sha != kKnownPreamble)
    out.warnings.push_back(
        fmt::format("{}: the tool preamble ({} bytes, SHA-256 {}) is not the one published with "
                    "DeepSeek-V3.2",
                    what, out.tools_preamble.size(), sha.substr(0, 16)));
  return out;
}

ChatTemplate own_chat_template() {
  ChatTemplate out;
  out.source = "fathom";
  const std::string d(kDsmlText);
  out.tools_preamble =
      "## Tools\n\nThese functions can be called. A call is written as a block of this form, one "
      "invoke for each call and one parameter for each argument:\n\n<" +
      d + "function_calls>\n<" + d + "invoke name=\"FUNCTION\">\n<" + d +
      "parameter name=\"KEY\" string=\"true|false\">VALUE</" + d + "parameter>\n</" + d +
      "invoke>\n</" + d +
      "function_calls>\n\nText arguments stand as they are, with string=\"true\"; all others as "
      "JSON, with string=\"false\". Results come back between <function_results> and "
      "</function_results>.\n\nThe functions, one JSON object a line:\n\n<functions>\n";
  out.response_format_preamble =
      "## Response Format:\n\nAnswer with JSON that fits this schema, and with nothing else:\n";
  return out;
}

ChatTemplate load_chat_template(const std::string& folder) {
  for (const char* name : {"/encoding/encoding_dsv32.py", "/encoding_dsv32.py"}) {
    const std::string path = folder + name;
    if (file_exists(path)) return chat_template_from_python(read_file(path), path);
  }
  ChatTemplate out = own_chat_template();
  out.warnings.push_back(fmt::format(
      "{} has no encoding/encoding_dsv32.py: tools are described in fathom's own words", folder));
  return out;
}

}  // namespace fathom
