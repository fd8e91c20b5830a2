// AdamW over the named parameters of a model, with clipping by the global norm, and the two updates
// that are not gradients: the balancing bias and the moving average of the weights.
#pragma once

#include <string>
#include <vector>

#include "fathom/base/options.h"
#include "fathom/model/weights.h"

namespace fathom {

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // of parameters with two dimensions
  double clip_norm = 1.0;     // 0: no clipping
  double ema_decay = 0;       // 0: no average is kept

  void fields(OptionSet& o) {
    o.add("beta1", &beta1, "AdamW");
    o.add("beta2", &beta2, "AdamW");
    o.add("eps", &eps, "AdamW, outside the square root");
    o.add("weight_decay", &weight_decay, "decoupled decay of parameters with two dimensions");
    o.add("clip_norm", &clip_norm, "largest global gradient norm; 0: no clipping");
    o.add("ema_decay", &ema_decay, "keep an exponential moving average of the weights; 0: none");
  }
};

class Optimizer {
 public:
  // Allocates two moments per trainable parameter (and the average, if asked for).
  Optimizer(const Ctx& ctx, const std::vector<Param>& params, const OptimizerOptions& options);

  // The norm of all gradients, before clipping; f64, parameters in order.
  double grad_norm(const Ctx& ctx) const;
  // One update with gradients clipped from `norm`, then forgets the gradients. Parameters whose
  // gradient was never written are updated with a gradient of zero; frozen ones (needs_grad false)
  // are left alone, decay included.
  void step(const Ctx& ctx, double learning_rate, double norm);
  int64_t num_steps() const { return num_steps_; }

  // State for checkpoints: (name, tensor) in a fixed order: "m.NAME", "v.NAME", "ema.NAME".
  std::vector<Param> state() const;
  void set_num_steps(int64_t n) { num_steps_ = n; }

 private:
  struct Slot {
    Param param;
    Tensor m, v, ema;
  };
  void update(const Ctx& ctx, const Slot& s, double learning_rate, double factor) const;

  OptimizerOptions options_;
  std::vector<Slot> slots_;
  int64_t num_steps_ = 0;
};

// Auxiliary-loss-free balancing (V3 report, section 2.1.2): b_e += speed * sign(mean count -
// count_e).
void update_correction_bias(const View& bias_E, const std::vector<int64_t>& count, double speed);

}  // namespace fathom
