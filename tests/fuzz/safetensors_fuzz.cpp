// Any bytes are a safetensors file or an Error; of a file every byte can be read. The input is
// tried as a whole file and as the header of one without data.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/tensor/safetensors.h"

namespace {

void try_file(std::span<const uint8_t> bytes) {
  try {
    const auto file = fathom::SafetensorsFile::from_bytes(std::as_bytes(bytes), "input");
    int64_t sum = 0;
    for (const fathom::SafetensorsEntry& entry : file.entries()) {
      const fathom::Tensor tensor = file.tensor(entry);
      const auto* data = static_cast<const uint8_t*>(tensor.view.data);
      for (int64_t i = 0; i < tensor.view.size_bytes(); ++i) sum += data[i];
      FM_CHECK(file.find(entry.name) == &entry, "{} is not found", entry.name);
    }
    FM_CHECK(sum >= 0, "sum {}", sum);
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_file({data, size});
  const uint64_t header_bytes = size;
  std::vector<uint8_t> file(8 + size);
  std::memcpy(file.data(), &header_bytes, 8);
  if (size > 0) std::memcpy(file.data() + 8, data, size);
  try_file(file);
  return 0;
}
