#include "fathom/train/next_token.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/train/data/packer.h"
#include "fathom/train/shared_gradient.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

size_t layer_of(const std::string& buffer_name) {  // "model.layers.7.mlp..."
  constexpr std::string_view kPrefix = "model.layers.";
  return static_cast<size_t>(std::stoi(buffer_name.substr(kPrefix.size())));
}

std::vector<std::shared_ptr<const Shard>> open_data(const StageRecipe& stage,
                                                    const std::vector<std::string>& paths,
                                                    const ModelConfig& config) {
  if (paths.empty())
    throw Error(Code::kInvalidArgument,
                fmt::format("stage \"{}\": expected data, found none", stage.stage.name),
                "name shards, or folders of them, under data");
  std::vector<std::shared_ptr<const Shard>> shards = open_shards(paths);
  for (const auto& shard : shards)
    if (shard->info().vocab_size > static_cast<uint64_t>(config.vocab_size))
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected tokens below the model's vocab_size {}, found a "
                              "vocabulary of {}",
                              shard->path(), config.vocab_size, shard->info().vocab_size),
                  "raise vocab_size in [model], or pack with the model's tokenizer");
  return shards;
}

double max_load_of(const LossReport& r) {
  double worst = 0;
  for (const std::vector<int64_t>& count : r.expert_count) {
    int64_t total = 0, most = 0;
    for (const int64_t c : count) {
      total += c;
      most = std::max(most, c);
    }
    if (total > 0)
      worst = std::max(worst, static_cast<double>(most) * static_cast<double>(count.size()) /
                                  static_cast<double>(total));
  }
  return worst;
}

std::vector<std::string> data_paths(const StageContext& c) {
  std::vector<std::string> out;
  for (const std::string& path : c.stage.stage.data) out.push_back(path_in_run(path, c.run));
  return out;
}

class NextTokenSteps final : public StageSteps {
 public:
  explicit NextTokenSteps(const StageContext& c)
      : c_(c),
        batcher_(open_data(c.stage, data_paths(c), c.model.config), c.stage.batch, c.special),
        gradient_(c.ctx, c.comm, c.model.weights.params) {}

  void step(const TrainState& before, StepReport* r) override {
    const StageRecipe& stage = c_.stage;
    const int64_t windows =
        batch_size_at(stage.schedule, before.stage_step, stage.batch.batch_size);
    r->rows = windows * stage.batch.seq_len;
    const TrainBatch batch =
        train_batch(batcher_.batch(static_cast<uint64_t>(before.stage_step)), r->rows);
    const LossCounts counts = count_losses(batch);
    std::vector<TrainBatch> parts;
    for (size_t first = 0; first + 1 < batch.bounds.size();)
      parts.push_back(take_part(batch, stage.stage.rows_per_pass, &first));
    r->loss = gradient_.sum<LossReport>(parts.size(), [&](size_t i) {
      Tape tape;
      Ctx pass = c_.ctx;
      pass.tape = &tape;
      return run_objective(pass, c_.model, parts[i], counts, stage.objective);
    });
    if (before.stage_step == 0 && std::ssize(parts) < c_.comm.size())
      r->alarms.push_back(
          fmt::format("{} ranks share {} passes of a batch; rows_per_pass {} cuts it "
                      "into more",
                      c_.comm.size(), parts.size(), r->rows / c_.comm.size()));
    r->grad_norm = c_.optimizer.grad_norm(c_.ctx);
    check_finite(before, stage, *r);
    r->learning_rate = learning_rate_at(stage.schedule, before.stage_step, stage.stage.steps);
    c_.optimizer.step(c_.ctx, r->learning_rate, r->grad_norm);
    move_bias(r->loss);
    c_.model.weights.pack(c_.ctx, true);
    r->max_load = max_load_of(r->loss);
    r->tokens = static_cast<int64_t>(counts.lm);
  }

 private:
  void move_bias(const LossReport& loss) {
    const double speed = c_.stage.stage.bias_update_speed;
    if (speed == 0) return;
    for (const Param& b : c_.model.weights.buffers)
      if (const auto& count = loss.expert_count; layer_of(b.name) < count.size())
        update_correction_bias(b.value, count[layer_of(b.name)], speed);
  }

  StageContext c_;
  Batcher batcher_;
  SharedGradient gradient_;
};

}  // namespace

std::unique_ptr<StageSteps> begin_next_token(const StageContext& context) {
  return std::make_unique<NextTokenSteps>(context);
}

TrainBatch train_batch(const Batch& batch, int64_t rows) {
  TrainBatch out;
  const auto n = static_cast<size_t>(rows);
  out.token.assign(batch.tokens.begin(), batch.tokens.begin() + rows);
  out.target.assign(batch.targets.begin(), batch.targets.begin() + rows);
  for (size_t t = 0; t < n; ++t) out.weight.push_back(static_cast<double>(batch.loss_mask[t]));
  for (const int32_t b : batch.doc_bounds) {
    if (b >= rows) break;
    out.bounds.push_back(b);
  }
  out.bounds.push_back(static_cast<int32_t>(rows));
  return out;
}

}  // namespace fathom
