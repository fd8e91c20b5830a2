#include "fathom/text/chat_template.h"

#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
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

namespace {

ChatTemplate own_glm() {
  ChatTemplate out;
  out.source = "fathom";
  out.no_thought = kEndThinkText;
  out.tools_preamble =
      "\n# Tools\n\nThese functions can be called. Their schemas, one a line:\n<tools>\n";
  out.tools_tail =
      "</tools>\n\nA call is written in this form, one key and value for each argument:\n"
      "<tool_call>{name}<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>";
  return out;
}

// The text from `begin` up to and including `end`; empty where it is not found.
std::string between(std::string_view source, std::string_view begin, std::string_view end) {
  const size_t at = source.find(begin);
  if (at == source.npos) return "";
  const size_t stop = source.find(end, at + begin.size());
  return stop == source.npos ? "" : std::string(source.substr(at, stop + end.size() - at));
}

// The text of the first system message that a Kimi template writes itself.
std::string kimi_system(std::string_view source) {
  const std::string front = std::string(kImSystemText) + "system" + std::string(kImMiddleText);
  for (size_t at = 0; (at = source.find(front, at)) != source.npos;) {
    at += front.size();
    const size_t end = source.find(kImEndText, at);
    const std::string_view text = source.substr(at, end == source.npos ? 0 : end - at);
    if (!text.empty() && text.find_first_of("{}'<") == text.npos) return std::string(text);
  }
  return "";
}

void read_glm(std::string_view source, ChatTemplate& out, std::vector<std::string>& absent) {
  const std::string tools = between(source, "\n# Tools", "<tools>\n");
  // Between the schemas and the end of the block stands Jinja; behind it, constant text again.
  const size_t list = source.find("<tools>\n");
  const size_t tail = list == source.npos ? list : source.find("\n</tools>", list);
  if (tools.empty() || tools.find("{%") != tools.npos || tail == source.npos) {
    absent.push_back("block of tools");
  } else {
    const size_t end = std::min(source.find("{%", tail), source.size());
    out.tools_preamble = tools;
    out.tools_tail = source.substr(tail + 1, end - tail - 1);
    out.bare_functions = source.substr(0, tail).find("['function']") != source.npos ||
                         source.substr(0, tail).find("tool.function") != source.npos;
  }
  if (source.find("'<think></think>'") != source.npos) out.no_thought = "<think></think>";
  if (source.find("Reasoning Effort: ") != source.npos) out.reasoning_effort = "Max";
}

// The Jinja source in `folder`, and where it was found; empty: none.
std::string jinja_source(const std::string& folder, std::string& where) {
  where = folder + "/chat_template.jinja";
  if (file_exists(where)) return read_file(where);
  where = folder + "/tokenizer_config.json";
  if (!file_exists(where)) return "";
  const Json config = Json::parse(read_file(where), where);
  const Json* source = config.find("chat_template");
  if (!source) return "";
  where += ": chat_template";
  if (source->is_string()) return source->as_string();
  if (source->is_array()) {  // several, by name
    for (const Json& one : source->items()) {
      const Json* name = one.find("name");
      if (name && name->is_string() && name->as_string() == "default")
        return one.at("template").as_string();
    }
  }
  throw Error(Code::kInvalidArgument,
              fmt::format("{}: expected a text or a list with a \"default\"", where));
}

}  // namespace

ChatTemplate chat_template_from_jinja(std::string_view source, ChatFormat format,
                                      const std::string& what) {
  ChatTemplate out = own_chat_template(format);
  out.source = "checkpoint";
  std::vector<std::string> absent;
  if (format == ChatFormat::kGlm) {
    read_glm(source, out, absent);
  } else {
    out.default_system = kimi_system(source);
    out.compact_tools = source.find("separators") != source.npos;
    if (out.default_system.empty()) absent.push_back("first system message");
  }
  for (const std::string& part : absent)
    out.warnings.push_back(
        fmt::format("{}: found no {}; it is in fathom's own words, or left out", what, part));
  return out;
}

ChatTemplate own_chat_template(ChatFormat format) {
  if (format == ChatFormat::kGlm) return own_glm();
  ChatTemplate out;
  out.source = "fathom";
  if (format != ChatFormat::kV32) return out;
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

ChatTemplate load_chat_template(const std::string& folder, ChatFormat format) {
  if (format == ChatFormat::kKimi || format == ChatFormat::kKimiThinking ||
      format == ChatFormat::kGlm) {
    std::string where;
    if (const std::string source = jinja_source(folder, where); !source.empty())
      return chat_template_from_jinja(source, format, where);
    ChatTemplate out = own_chat_template(format);
    out.warnings.push_back(folder +
                           " has no chat_template: tools are described in fathom's own words, and "
                           "no system message is added");
    return out;
  }
  if (format != ChatFormat::kV32) return own_chat_template(format);
  for (const char* name : {"/encoding/encoding_dsv32.py", "/encoding_dsv32.py"}) {
    const std::string path = folder + name;
    if (file_exists(path)) return chat_template_from_python(read_file(path), path);
  }
  ChatTemplate out = own_chat_template(format);
  out.warnings.push_back(fmt::format(
      "{} has no encoding/encoding_dsv32.py: tools are described in fathom's own words", folder));
  return out;
}

}  // namespace fathom
