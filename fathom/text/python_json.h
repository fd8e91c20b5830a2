// JSON as Python prints it again. Prompts must equal, byte for byte, what the published (Python)
// encoders write.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

class Json;

// json.dumps(json.loads(text), ensure_ascii=False): separators ", " and ": ", integers with all
// digits, other numbers as repr(float), of equal keys the last value in the first place.
std::string python_dump(const Json& json);

// A JSON number text after Python's parse and print: "1.50" -> "1.5", "1e2" -> "100.0", "-0" ->
// "0".
std::string python_number(std::string_view text);

}  // namespace fathom
