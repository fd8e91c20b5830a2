// Collectives over point-to-point messages, each behind a comparison of what the ranks want.
#pragma once

#include <memory>

#include "fathom/comm/comm.h"
#include "fathom/comm/wire.h"

namespace fathom {

// timeout_s: how long a rank waits for another before it throws Error (kTimeout) with its number;
// 0: for ever.
std::unique_ptr<Comm> make_wire_comm(std::unique_ptr<Wire> wire, double timeout_s);

}  // namespace fathom
