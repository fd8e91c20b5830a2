// Any text is a list of training records, of problems or of tasks, or an Error; a chat alternates
// and ends with the assistant.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/task/synth/corpus.h"
#include "fathom/task/synth/task_source.h"
#include "fathom/train/data/records.h"
#include "tests/fuzz/input_file.h"

namespace {

void try_record(std::string_view line) {
  try {
    const fathom::Record record = fathom::parse_record(line, "input");
    if (record.is_chat())
      FM_CHECK(record.chat.back().role == fathom::Role::kAssistant, "{} turns", record.chat.size());
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

template <class Read>
void try_file(const std::string& path, Read read) {
  try {
    FM_CHECK(!read(path).empty(), "a file without entries passed");
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fathom::InputFile file(data, size);
  try_file(file.path(), fathom::read_tasks);
  try_file(file.path(), fathom::read_problems);
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    try_record(rest.substr(0, end));
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  }
  return 0;
}
