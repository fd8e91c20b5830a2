// Any bytes either parse or throw Error; what parsed prints to a text that parses to the same
// again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fathom::Json value;
  try {
    value = fathom::Json::parse(text, "input");
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
    return 0;
  }
  for (const int indent : {-1, 0, 2}) {
    const std::string printed = value.dump(indent);
    const std::string again = fathom::Json::parse(printed, "printed").dump(indent);
    FM_CHECK(printed == again, "printed {}, then {}", printed, again);
  }
  return 0;
}
