// The FP8 path in simulation: quantise-dequantise activations, Hadamard rotation, bf16 rounding.
// Forward only.
#pragma once

#include "fathom/ops/ctx.h"

namespace fathom {

Value fp8_round(Ctx& ctx, const Value& x_TD,
                ScaleFormat format);          // 1 x 128 groups of the last dimension
Value hadamard(Ctx& ctx, const Value& x_TD);  // D a power of two
Value bf16_round(Ctx& ctx, const Value& x_TD);

}  // namespace fathom
