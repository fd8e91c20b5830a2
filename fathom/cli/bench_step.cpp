#include "fathom/cli/bench_step.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "fathom/base/rng.h"
#include "fathom/cli/peer.h"
#include "fathom/cli/runtime.h"
#include "fathom/kernels/cpu/simd/peak.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/objective.h"
#include "fathom/train/optimizer.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

constexpr double kPeakSeconds = 0.05;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TrainBatch random_batch(const ModelConfig& c, const BenchStepOptions& o, uint64_t index) {
  Rng rng(1, "bench step", index);
  TrainBatch b;
  b.bounds.push_back(0);
  for (int64_t s = 0; s < o.batch_size; ++s) {
    for (int64_t t = 0; t < o.seq_len; ++t) {
      b.token.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
      b.target.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
      b.weight.push_back(1);
    }
    b.bounds.push_back(static_cast<int32_t>(b.token.size()));
  }
  return b;
}

void count_parameters(const Model& model, const BenchStepOptions& o, BenchStepResult* r) {
  const ModelConfig& c = model.config;
  int64_t experts = 0;
  for (const Param& p : model.weights.params) {
    r->parameters += p.value->numel();
    if (p.name.find(".experts.") != std::string::npos) experts += p.value->numel();
  }
  r->active = r->parameters - c.vocab_size * c.hidden_size -
              experts / c.n_routed_experts * (c.n_routed_experts - c.num_experts_per_tok);
  const double scores =
      static_cast<double>(c.num_hidden_layers * 2 * o.seq_len * c.num_attention_heads *
                          (c.qk_head_dim() + c.v_head_dim));
  r->flop_per_token = 6 * static_cast<double>(r->active) + 3 * scores;
}

}  // namespace

ModelConfig bench_step_config() {
  ModelConfig c;
  c.architectures = {"DeepseekV3ForCausalLM"};
  c.model_type = "deepseek_v3";
  c.vocab_size = 4096;
  c.hidden_size = 256;
  c.num_hidden_layers = 6;
  c.first_k_dense_replace = 1;
  c.intermediate_size = 768;
  c.num_attention_heads = 4;
  c.q_lora_rank = 128;
  c.kv_lora_rank = 64;
  c.qk_nope_head_dim = 48;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = 48;
  c.n_routed_experts = 16;
  c.num_experts_per_tok = 4;
  c.n_shared_experts = 1;
  c.moe_intermediate_size = 128;
  c.routed_scaling_factor = 2.5;
  c.norm_topk_prob = true;
  return c;
}

BenchStepResult bench_step(const BenchStepOptions& o) {
  Runtime rt(Precision::kF32, o.threads);
  Ctx plain = rt.ctx();
  plain.gradient_products = choose_gradient_products(plain, o.gradient_products);
  Model model = random_model(plain, bench_step_config(), 1);
  Optimizer optimizer(plain, model.weights.params, {});
  ObjectiveOptions objective;
  objective.form = o.form;
  BenchStepResult r;
  r.gradient_products = plain.gradient_products;
  r.tokens = o.batch_size * o.seq_len;
  count_parameters(model, o, &r);
  const TrainBatch probe_batch = random_batch(model.config, o, 0);
  const auto loss_of_probe = [&] {
    Ctx ctx = rt.ctx();
    return run_objective(ctx, model, probe_batch, count_losses(probe_batch), objective).lm;
  };
  r.first_loss = loss_of_probe();
  for (int64_t round = 0; round < o.rounds; ++round) {
    for (int64_t i = 0; i < o.warmup_steps + o.steps; ++i) {
      const TrainBatch& batch = probe_batch;
      const double begin_s = now_s();
      const LossCounts counts = count_losses(batch);
      for (size_t first = 0; first + 1 < batch.bounds.size();) {
        Tape tape;
        Ctx ctx = plain;
        ctx.tape = &tape;
        run_objective(ctx, model, take_part(batch, o.rows_per_pass, &first), counts, objective);
      }
      const double optimizer_s = now_s();
      optimizer.step(plain, 1e-3, optimizer.grad_norm(plain));
      model.weights.pack(plain, true);
      const double end_s = now_s();
      if (i < o.warmup_steps) continue;
      r.step_s.push_back(end_s - begin_s);
      r.optimizer_s.push_back(end_s - optimizer_s);
      r.peak_flops.push_back(measure_fma_peak(rt.pool, kPeakSeconds));
    }
    if (!o.peer.empty()) r.peer_tokens_per_s.push_back(run_peer(o.peer, 0).front().tokens_per_s);
  }
  r.last_loss = loss_of_probe();
  r.peak_bytes = rt.arena.stats().peak_bytes;
  return r;
}

int run_bench_step(const BenchStepOptions& o) {
  const BenchStepResult r = bench_step(o);
  const double step_s = median(r.step_s),
               best_s = *std::min_element(r.step_s.begin(), r.step_s.end());
  const double peak = median(r.peak_flops), flop = r.flop_per_token * static_cast<double>(r.tokens);
  const double tokens_per_s = static_cast<double>(r.tokens) / step_s;
  fmt::print(
      "{:.2f} M parameters, {:.2f} M active, {:.1f} MFLOP a token, {} tokens a step, {} "
      "attention, {} products in the backward pass\n",
      static_cast<double>(r.parameters) / 1e6, static_cast<double>(r.active) / 1e6,
      r.flop_per_token / 1e6, r.tokens, o.form,
      r.gradient_products == GradProducts::kSplit ? "split" : "f32");
  fmt::print("loss of the repeated batch {:.4f} -> {:.4f}\n", r.first_loss, r.last_loss);
  fmt::print(
      "step median {:.0f} ms, best {:.0f} ms (optimiser and packing {:.0f} ms); tensors {:.2f} "
      "GB\n",
      step_s * 1e3, best_s * 1e3, median(r.optimizer_s) * 1e3,
      static_cast<double>(r.peak_bytes) / 1e9);
  fmt::print("tokens/s median {:.0f}, best {:.0f}\n", tokens_per_s,
             static_cast<double>(r.tokens) / best_s);
  fmt::print(
      "GFLOP/s median {:.1f}, best {:.1f}; measured multiply-add peak {:.1f}: {:.1f} % (best "
      "{:.1f} %)\n",
      flop / step_s / 1e9, flop / best_s / 1e9, peak / 1e9, 100 * flop / step_s / peak,
      100 * flop / best_s / peak);
  if (!r.peer_tokens_per_s.empty()) {
    const double peer = median(r.peer_tokens_per_s);
    fmt::print("peer tokens/s median {:.0f} over {} rounds: ratio {:.2f}\n", peer,
               r.peer_tokens_per_s.size(), tokens_per_s / peer);
  }
  if (!(r.last_loss < r.first_loss)) {
    fmt::print("the loss did not fall: the step computes something else than training\n");
    return 1;
  }
  return 0;
}

}  // namespace fathom
