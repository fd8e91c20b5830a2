// The kernels' tests for the matrix unit (AMX) on processors with AVX-512 that have none: its
// instructions trap and are computed here, as Intel's manual defines them (Software Developer's
// Manual, volume 2, TILELOADD to TDPBF16PS). Takes the place of fathom/kernels/cpu/simd/amx.cpp and
// of doctest_main.cpp in their program; no permission to use tiles is asked for, so that they trap
// on processors that have them, too.
#define DOCTEST_CONFIG_IMPLEMENT
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS  // SIGILL is ours
#include <doctest/doctest.h>

#include <cstdio>

#include "fathom/kernels/cpu/simd/amx.h"

namespace fathom::simd {
namespace {
bool emulated() {
#if defined(__x86_64__) && defined(__linux__)
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}
}  // namespace
bool amx_int8() { return emulated(); }
bool amx_bf16() { return emulated(); }
}  // namespace fathom::simd

#if defined(__x86_64__) && defined(__linux__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsics
#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace {

struct Tiles {
  uint16_t bytes[8];  // of a row
  uint8_t rows[8];
  alignas(64) uint8_t data[8][16][64];
};
thread_local Tiles tiles;

[[noreturn]] void give_up(const char* what) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, what, std::strlen(what));
  _exit(1);
}

// An instruction of the family: VEX with three bytes, map 2, an operation, ModRM and what it asks
// for.
struct Instruction {
  int prefix, operation;   // prefix: 0 none, 1 66, 2 F3, 3 F2
  int reg, other, second;  // tiles of ModRM's reg and rm, of VEX
  bool memory;
  char* base;
  int64_t stride;
  int64_t size;  // bytes

  explicit Instruction(const ucontext_t& at) {
    static constexpr int kRegisters[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                         REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                         REG_R12, REG_R13, REG_R14, REG_R15};
    const auto value = [&](int r) { return at.uc_mcontext.gregs[kRegisters[r]]; };
    const auto* code = reinterpret_cast<const uint8_t*>(at.uc_mcontext.gregs[REG_RIP]);
    const auto number = [&] {  // of 32 bits, next in the code
      int32_t n;
      std::memcpy(&n, code + size, sizeof n);
      size += 4;
      return int64_t{n};
    };
    const bool high_index = !(code[1] & 0x40), high_base = !(code[1] & 0x20);
    prefix = code[2] & 3;
    second = ~code[2] >> 3 & 7;
    operation = code[3];
    const int mode = code[4] >> 6, rm = code[4] & 7;
    reg = code[4] >> 3 & 7;
    other = rm;
    memory = mode != 3;
    size = 5;
    stride = 0;
    int64_t address = 0;
    if (memory) {
      int base_register = rm;
      if (rm == 4) {
        const uint8_t sib = code[size++];
        const int index = (sib >> 3 & 7) | high_index << 3;
        if (index != 4) stride = value(index) << (sib >> 6);
        base_register = sib & 7;
      }
      const bool relative = rm == 5 && mode == 0;
      const bool absolute = rm == 4 && base_register == 5 && mode == 0;
      if (relative || absolute)
        address = number();
      else
        address = value(base_register | high_base << 3);
      if (relative) address += reinterpret_cast<int64_t>(code) + size;
      if (mode == 1) address += static_cast<int8_t>(code[size++]);
      if (mode == 2) address += number();
    }
    base = reinterpret_cast<char*>(address);
  }
};

// sums += a * b, bytes four by four
__attribute__((target("avx512f,avx512bw"))) void add_bytes(int sums, int a, int b, bool signed_a,
                                                           bool signed_b) {
  for (int m = 0; m < tiles.rows[sums]; ++m) {
    __m512i sum = _mm512_load_si512(tiles.data[sums][m]);
    for (int k = 0; k < tiles.bytes[a] / 4; ++k) {
      const __m512i four = _mm512_load_si512(tiles.data[b][k]);
      for (int i = 0; i < 4; ++i) {
        const uint8_t x = tiles.data[a][m][4 * k + i];
        const __m512i left = _mm512_slli_epi32(four, 24 - 8 * i);
        const __m512i y = signed_b ? _mm512_srai_epi32(left, 24) : _mm512_srli_epi32(left, 24);
        const __m512i wide = _mm512_set1_epi32(signed_a ? static_cast<int8_t>(x) : x);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(wide, y));
      }
    }
    _mm512_mask_storeu_epi8(tiles.data[sums][m], (uint64_t{1} << (tiles.bytes[sums] - 1) << 1) - 1,
                            sum);
  }
}

// sums += a * b, bf16 two by two: even and odd products have a chain of multiply-adds each, their
// sum is added at the end. Subnormal numbers are 0.
__attribute__((target("avx512f,avx512bw"))) void add_bf16(int sums, int a, int b) {
  _mm_setcsr(_mm_getcsr() | 0x8040);  // until this signal is over
  for (int m = 0; m < tiles.rows[sums]; ++m) {
    __m512 chain[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int k = 0; k < tiles.bytes[a] / 4; ++k) {
      uint32_t two;
      std::memcpy(&two, tiles.data[a][m] + 4 * k, sizeof two);
      const __m512i x = _mm512_set1_epi32(static_cast<int32_t>(two));
      const __m512i y = _mm512_load_si512(tiles.data[b][k]);
      const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000));
      chain[0] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                                 _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), chain[0]);
      chain[1] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, upper)),
                                 _mm512_castsi512_ps(_mm512_and_si512(y, upper)), chain[1]);
    }
    const __m512 before = _mm512_load_ps(tiles.data[sums][m]);
    const __m512 sum = _mm512_add_ps(before, _mm512_add_ps(chain[0], chain[1]));
    _mm512_mask_storeu_epi8(tiles.data[sums][m], (uint64_t{1} << (tiles.bytes[sums] - 1) << 1) - 1,
                            _mm512_castps_si512(sum));
  }
}

void configure(const char* shapes) {
  std::memset(&tiles, 0, sizeof tiles);
  std::memcpy(tiles.bytes, shapes + 16, sizeof tiles.bytes);
  std::memcpy(tiles.rows, shapes + 48, sizeof tiles.rows);
}

void move(const Instruction& to, bool load) {
  if (load) std::memset(tiles.data[to.reg], 0, sizeof tiles.data[0]);
  for (int i = 0; i < tiles.rows[to.reg]; ++i) {
    char* line = to.base + i * to.stride;
    uint8_t* row = tiles.data[to.reg][i];
    if (load)
      std::memcpy(row, line, tiles.bytes[to.reg]);
    else
      std::memcpy(line, row, tiles.bytes[to.reg]);
  }
}

// Whether one of the family comes next; its operations mean nothing else in map 2.
bool is_next(const ucontext_t& at) {
  const auto* code = reinterpret_cast<const uint8_t*>(at.uc_mcontext.gregs[REG_RIP]);
  if (code[0] != 0xC4 || (code[1] & 31) != 2) return false;
  return code[3] == 0x49 || code[3] == 0x4B || code[3] == 0x5C || code[3] == 0x5E;
}

void run(const Instruction& i) {
  switch (i.operation << 4 | i.prefix) {
    case 0x490:  // LDTILECFG, TILERELEASE
      if (i.memory) return configure(i.base);
      std::memset(&tiles, 0, sizeof tiles);
      return;
    case 0x493:
      std::memset(tiles.data[i.reg], 0, sizeof tiles.data[0]);
      return;  // TILEZERO
    case 0x4B3:
      return move(i, true);  // TILELOADD
    case 0x4B2:
      return move(i, false);  // TILESTORED
    case 0x5E3:
      return add_bytes(i.reg, i.other, i.second, true, true);  // TDPBSSD
    case 0x5E2:
      return add_bytes(i.reg, i.other, i.second, true, false);  // TDPBSUD
    case 0x5E1:
      return add_bytes(i.reg, i.other, i.second, false, true);  // TDPBUSD
    case 0x5E0:
      return add_bytes(i.reg, i.other, i.second, false, false);  // TDPBUUD
    case 0x5C2:
      return add_bf16(i.reg, i.other, i.second);  // TDPBF16PS
    default:
      give_up("an instruction of the matrix unit that is not emulated\n");
  }
}

void emulate(int, siginfo_t*, void* context) {
  auto& at = *static_cast<ucontext_t*>(context);
  if (!is_next(at)) give_up("an instruction that this processor does not have\n");
  while (is_next(at)) {  // a signal costs more than most of them
    const Instruction next(at);
    run(next);
    at.uc_mcontext.gregs[REG_RIP] += next.size;
  }
}

}  // namespace
#endif

int main(int argc, char** argv) {
  if (!fathom::simd::amx_int8()) {
    std::puts("skipped: the emulation of the matrix unit needs AVX-512BW and AVX-512VNNI");
    return 77;
  }
#if defined(__x86_64__) && defined(__linux__)
  struct sigaction action = {};
  action.sa_sigaction = &emulate;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, nullptr);
#endif
  return doctest::Context(argc, argv).run();
}
