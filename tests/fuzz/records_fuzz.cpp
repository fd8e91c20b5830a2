// Any text is a list of training records or an Error; a chat ends with the assistant.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/train/data/records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    try {
      const fathom::Record record = fathom::parse_record(rest.substr(0, end), "input");
      if (record.is_chat())
        FM_CHECK(record.chat.back().role == fathom::Speaker::kAssistant, "{} turns",
                 record.chat.size());
    } catch (const fathom::InternalError&) {
      throw;
    } catch (const fathom::Error&) {
    }
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  return 0;
}
