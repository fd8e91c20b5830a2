// Threads, memory and kernels of one command.
#pragma once

#include <algorithm>
#include <charconv>
#include <memory>

#include "fathom/base/env.h"
#include "fathom/base/thread_pool.h"
#include "fathom/cli/dump.h"
#include "fathom/ops/ctx.h"

namespace fathom {

enum class Precision : uint8_t { kF32, kF64 };  // kF64 runs the reference kernels

struct Runtime {
  explicit Runtime(Precision precision = Precision::kF32, int64_t threads = 0)
      : pool(threads > 0 ? static_cast<int>(threads) : default_threads()),
        real(precision == Precision::kF64 ? DType::kF64 : DType::kF32),
        reference(precision == Precision::kF64 || env_value("FATHOM_ISA") == "ref") {}

  Ctx ctx(Tape* tape = nullptr, Probe* probe = nullptr) {
    return {.kernels = reference ? cpu_ref() : cpu_simd(),
            .pool = pool,
            .arena = arena,
            .real = real,
            .tape = tape,
            .probe = probe ? probe : dump.get()};
  }

  static int default_threads() {
    const std::string text = env_value("FATHOM_THREADS");
    int n = 0;
    std::from_chars(text.data(), text.data() + text.size(), n);
    return n > 0 ? n : available_cores();
  }

  ThreadPool pool;
  Arena arena;
  DType real;
  std::unique_ptr<DumpProbe> dump = dump_from_environment();
  bool reference;  // plain loops instead of the vector kernels
};

}  // namespace fathom
