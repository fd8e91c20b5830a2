#include "fathom/kernels/cpu/simd/amx.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fathom::simd {
namespace {

#if defined(__x86_64__) && defined(__linux__)
// Tiles with the feature of that bit; the permission to use tiles is asked for.
bool usable(unsigned feature) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kTile = 1u << 24;
  if ((d & kTile) == 0 || (d & feature) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool usable(unsigned) { return false; }
#endif

}  // namespace

bool amx_int8() {
  static const bool yes = usable(1u << 25);
  return yes;
}

bool amx_bf16() {
  static const bool yes = usable(1u << 22);
  return yes;
}

}  // namespace fathom::simd
