// Any bytes are the header of a file of packed weights that fits its size, or an Error.
#include <cstddef>
#include <cstdint>
#include <span>

#include "fathom/base/error.h"
#include "fathom/model/packed_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto h = fathom::parse_packed_header(std::as_bytes(std::span(data, size)), "input");
    uint64_t end = h.data_begin;
    for (const fathom::PackedEntry& e : h.entries) {
      FM_CHECK(e.rows >= 0 && e.columns >= 0, "{} x {}", e.rows, e.columns);
      end += static_cast<uint64_t>(e.forward_bytes + e.transposed_bytes);
    }
    FM_CHECK(end == size, "{} of {} bytes", end, size);
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
  return 0;
}
