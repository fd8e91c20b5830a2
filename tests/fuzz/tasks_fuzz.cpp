// Any text is a file of tasks, and one of held-out problems, or an Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fathom/base/error.h"
#include "fathom/task/synth/corpus.h"
#include "fathom/task/synth/task_source.h"
#include "tests/fuzz/input_file.h"

namespace {

template <class Read>
void try_file(Read read, const std::string& path) {
  try {
    read(path);
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fathom::InputFile file(data, size);
  try_file(fathom::read_tasks, file.path());
  try_file(fathom::read_problems, file.path());
  return 0;
}
