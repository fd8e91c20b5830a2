// The few functions of MPI that fathom needs, as a module that is loaded only where a launcher
// started several processes: the program itself does not depend on MPI.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

// int results: 0, or a code for error_text.
struct MpiApi {
  int (*start)(int* rank, int* size);
  int (*send)(int to, const void* data, size_t size_bytes, int64_t* request);
  int (*receive)(int from, void* data, size_t size_bytes, int64_t* request);
  int (*test)(int64_t* request, int* done);
  int (*finish)();
  void (*abandon)(int exit_code);
  void (*error_text)(int code, char text[512]);
};

constexpr const char* kMpiModule = "fathom_mpi.so";
constexpr const char* kMpiSymbol = "fathom_mpi_api";  // const MpiApi* fathom_mpi_api();

}  // namespace fathom
