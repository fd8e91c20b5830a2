// The ranks of a run as a launcher started them.
#pragma once

#include <memory>

#include "fathom/comm/comm.h"

namespace fathom {

// The processes that mpirun or srun started together, found by the variables these set; without
// them one process, and no MPI library is touched. timeout_s as in make_wire_comm. Throws Error
// when there are ranks but this build has no MPI. Once per process.
std::unique_ptr<Comm> open_comm(double timeout_s);

}  // namespace fathom
