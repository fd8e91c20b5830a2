// Any bytes as the output of a peer: every figure has a rate, and is found again when other lines
// follow.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/cli/peer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<fathom::PeerFigure> figures = fathom::parse_peer(text);
  for (const fathom::PeerFigure& f : figures) {
    FM_CHECK(std::isfinite(f.tokens_per_s) && f.tokens_per_s > 0, "{} tokens/s", f.tokens_per_s);
    FM_CHECK(f.prefill || f.tokens == 0, "decoding of {} tokens", f.tokens);
  }
  const size_t again = fathom::parse_peer(text + "\n| and | no | table |\ndone\n").size();
  FM_CHECK(again == figures.size(), "{} figures, then {}", figures.size(), again);
  return 0;
}
