// fathom_mpi.so: MPI behind the table of mpi_api.h.
#define OMPI_SKIP_MPICXX 1  // the C functions alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstring>

#include "fathom/comm/mpi/mpi_api.h"

namespace {

// Handles are pointers in some libraries and numbers in others.
static_assert(sizeof(MPI_Request) <= sizeof(int64_t));

void keep(MPI_Request request, int64_t* to) {
  *to = 0;
  std::memcpy(to, &request, sizeof request);
}

int start(int* rank, int* size) {
  int level = 0;
  if (const int e = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level)) return e;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (const int e = MPI_Comm_rank(MPI_COMM_WORLD, rank)) return e;
  return MPI_Comm_size(MPI_COMM_WORLD, size);
}

int send(int to, const void* data, size_t size_bytes, int64_t* request) {
  MPI_Request r = MPI_REQUEST_NULL;
  const int e = MPI_Isend(data, static_cast<int>(size_bytes), MPI_BYTE, to, 0, MPI_COMM_WORLD, &r);
  keep(r, request);
  return e;
}

int receive(int from, void* data, size_t size_bytes, int64_t* request) {
  MPI_Request r = MPI_REQUEST_NULL;
  const int e =
      MPI_Irecv(data, static_cast<int>(size_bytes), MPI_BYTE, from, 0, MPI_COMM_WORLD, &r);
  keep(r, request);
  return e;
}

int test(int64_t* request, int* done) {
  MPI_Request r = MPI_REQUEST_NULL;
  std::memcpy(&r, request, sizeof r);
  const int e = MPI_Test(&r, done, MPI_STATUS_IGNORE);
  keep(r, request);
  return e;
}

void abandon(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

void error_text(int code, char text[512]) {
  char own[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, own, &length);
  std::strncpy(text, own, 511);
  text[511] = '\0';
}

constexpr fathom::MpiApi kApi = {start, send, receive, test, MPI_Finalize, abandon, error_text};

}  // namespace

extern "C" const fathom::MpiApi* fathom_mpi_api() { return &kApi; }
