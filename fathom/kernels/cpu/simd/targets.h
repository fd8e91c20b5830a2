// Instruction sets that the SIMD kernels are compiled for: AVX2 + FMA, AVX-512, NEON and an
// emulated baseline. Include before any Highway header; every file of this folder uses the same
// list.
#pragma once

// SSE levels have no fused multiply-add (their bits would differ), SVE has no fixed vector length.
// What AVX3_DL adds to AVX3 and is of use here, VNNI, kernels ask the processor for.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

namespace fathom::simd {

// AVX-VNNI: products of bytes beside AVX2, if the processor has them and limit_simd_target() did
// not leave them out.
bool avx_vnni();

}  // namespace fathom::simd
