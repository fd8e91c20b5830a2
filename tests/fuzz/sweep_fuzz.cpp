// Any text is a sweep or an Error; the cells of a sweep have different keys.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "fathom/base/error.h"
#include "fathom/cli/sweep_plan.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fathom::InputFile file(data, size);
  try {
    const fathom::Sweep sweep = fathom::read_sweep(file.path(), {});
    std::set<std::string> keys;
    for (const fathom::SweepCell& cell : sweep.cells) {
      FM_CHECK(keys.insert(cell.key).second, "two cells are {}", cell.key);
      sweep.studies[cell.study].arm(cell.arm);
    }
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
  return 0;
}
