#include "fathom/comm/launch.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <unistd.h>

#include <exception>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/comm/mpi/mpi_api.h"
#include "fathom/comm/wire_comm.h"

namespace fathom {
namespace {

// The module lies beside the program.
std::string module_path() {
  char path[4096];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  const std::string_view program(path, n > 0 ? static_cast<size_t>(n) : 0);
  return std::string(program.substr(0, program.rfind('/') + 1)) + kMpiModule;
}

const MpiApi* load_mpi() {
  const std::string path = module_path();
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  void* table = module ? ::dlsym(module, kMpiSymbol) : nullptr;
  if (!table) {
    const char* why = ::dlerror();
    throw Error(Code::kUnavailable,
                fmt::format("a launcher started several processes, but MPI cannot be loaded: {}",
                            why ? why : path),
                "build fathom where an MPI library is installed (Debian: libopenmpi-dev), or "
                "unset PMIX_RANK and PMI_RANK");
  }
  return reinterpret_cast<const MpiApi* (*)()>(table)();
}

class MpiWire final : public Wire {
 public:
  explicit MpiWire(const MpiApi* mpi) : mpi_(*mpi) { check(mpi_.start(&rank_, &size_)); }
  // In an orderly end all ranks meet here; while an error is under way they would wait for ever.
  ~MpiWire() override {
    if (std::uncaught_exceptions() > 0)
      mpi_.abandon(1);
    else
      mpi_.finish();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Transfer send(int to, const void* data, size_t size_bytes) override {
    Transfer t = 0;
    check(mpi_.send(to, data, size_bytes, &t));
    return t;
  }
  Transfer receive(int from, void* data, size_t size_bytes) override {
    Transfer t = 0;
    check(mpi_.receive(from, data, size_bytes, &t));
    return t;
  }
  bool done(Transfer* t) override {
    int done = 0;
    check(mpi_.test(t, &done));
    return done != 0;
  }
  void abandon(int exit_code) noexcept override { mpi_.abandon(exit_code); }

 private:
  void check(int code) const {
    if (code == 0) return;
    char text[512];
    mpi_.error_text(code, text);
    throw Error(Code::kUnavailable, fmt::format("rank {}: MPI: {}", rank_, text),
                "has a rank ended? The last checkpoint is intact");
  }

  const MpiApi& mpi_;
  int rank_ = 0, size_ = 1;
};

}  // namespace

std::unique_ptr<Comm> open_comm(double timeout_s) {
  if (env_value("PMIX_RANK").empty() && env_value("PMI_RANK").empty()) return make_single_comm();
  return make_wire_comm(std::make_unique<MpiWire>(load_mpi()), timeout_s);
}

}  // namespace fathom
