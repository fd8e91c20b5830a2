// The FP8 path in simulation. Forward only: outputs never need a gradient.
#include "fathom/ops/fp8.h"

#include "fathom/tensor/dims.h"

namespace fathom {

Value fp8_round(Ctx& ctx, const Value& x_TD, ScaleFormat format) {
  Dims d("fp8_round");
  FM_DIMS(d, x_TD);
  Value y_TD = ctx.make_like(x_TD, {});
  ctx.kernels.act_quant(ctx.exec(), {.x = x_TD, .format = format, .y = y_TD});
  return y_TD;
}

Value hadamard(Ctx& ctx, const Value& x_TD) {
  Dims d("hadamard");
  FM_DIMS(d, x_TD);
  Value y_TD = ctx.make_like(x_TD, {});
  ctx.kernels.hadamard(ctx.exec(), {.x = x_TD, .y = y_TD});
  return y_TD;
}

Value bf16_round(Ctx& ctx, const Value& x_TD) {
  Dims d("bf16_round");
  FM_DIMS(d, x_TD);
  Value y_TD = ctx.make_like(x_TD, {});
  ctx.kernels.round_bf16(ctx.exec(), {.x = x_TD, .y = y_TD});
  return y_TD;
}

}  // namespace fathom
