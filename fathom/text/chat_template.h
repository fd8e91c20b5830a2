// The wording that a chat encoding puts around tool schemas: data of the checkpoint, not of this
// program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct ChatTemplate {
  // V3.2: what stands before the schemas, up to and including "<functions>\n"; and what stands
  // before the schema of a response format.
  std::string tools_preamble;
  std::string response_format_preamble;
  std::string calls_block = "function_calls";  // the name of the wrapper around calls
  // "checkpoint": read from its encoding_dsv32.py; "fathom": own wording, for models trained here.
  std::string source;
  std::vector<std::string> warnings;  // for the person: unknown wording, file absent
};

// The wording of the checkpoint in `folder` (encoding/encoding_dsv32.py, or that file beside
// config.json), or the own wording with a warning where the file is absent. Nothing is executed:
// only string constants are read.
ChatTemplate load_chat_template(const std::string& folder);

// From the text of such a file. Throws Error when the two constants are not in it.
ChatTemplate chat_template_from_python(std::string_view source, const std::string& what);

ChatTemplate own_chat_template();

// All string constants of a Python source in order, adjacent ones joined as Python does. Byte
// strings and f-strings are left out.
std::vector<std::string> python_string_constants(std::string_view source);

}  // namespace fathom
