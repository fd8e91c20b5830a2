#include "fathom/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "fathom/base/file.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/data/packer.h"

namespace fathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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

}  // namespace

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

void set_trainable(const Model& model, const std::string& trains) {
  for (const Param& p : model.weights.params) {
    const bool indexer = p.name.find(".indexer.") != std::string::npos;
    p.value.node()->needs_grad = trains == "all" || (trains == "indexer") == indexer;
  }
}

Trainer::Trainer(const Ctx& ctx, Recipe recipe, std::string run, bool resume, BatchTokens special,
                 std::vector<std::string>* notes)
    : ctx_(ctx),
      recipe_(std::move(recipe)),
      run_(std::move(run)),
      special_(special),
      model_(random_model(ctx, recipe_.config, static_cast<uint64_t>(recipe_.seed))) {
  if (resume) {
    const std::optional<std::string> checkpoint = newest_checkpoint(run_, notes);
    if (checkpoint) {
      resumed_from_ = *checkpoint;
      state_ = read_train_state(*checkpoint);
      load_train_weights(*checkpoint, model_);
      model_.weights.pack(ctx_, true);
    } else if (notes) {
      notes->push_back("no complete checkpoint: the run starts anew");
    }
  }
  if (!resume && folder_exists(run_ + "/checkpoints"))
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: expected a folder without a run, found checkpoints", run_),
                "resume it, or choose another folder");
  const bool had_log = resume && file_exists(run_ + "/metrics.sqlite");
  log_ = std::make_unique<RunLog>(run_, had_log ? RunLog::Mode::kResume : RunLog::Mode::kCreate);
  if (had_log) log_->truncate_after(resumed_from_.empty() ? -1 : state_.global_step);
  log_->set_config(recipe_.values());
}

Trainer::~Trainer() = default;

void Trainer::run(TrainObserver& observer) {
  while (state_.stage_idx < static_cast<int64_t>(recipe_.stages.size())) {
    const StageRecipe& stage = recipe_.stages[static_cast<size_t>(state_.stage_idx)];
    run_stage(stage, observer);
    observer.on_stage_end(stage, state_, model_);
    ++state_.stage_idx;
    state_.stage_step = 0;
  }
}

void Trainer::run_stage(const StageRecipe& stage, TrainObserver& observer) {
  set_trainable(model_, stage.stage.trains);
  Batcher batcher(open_data(stage, data_paths(stage), recipe_.config), stage.batch, special_);
  Optimizer optimizer(ctx_, model_.weights.params, stage.optimizer);
  if (!resumed_from_.empty()) load_optimizer(resumed_from_, &optimizer);
  resumed_from_.clear();
  if (state_.stage_step == 0) log_->text(state_.global_step, "stage", stage.stage.name);
  observer.on_stage_begin(stage, state_);
  while (state_.stage_step < stage.stage.steps) {
    const StepReport report = step(stage, batcher, optimizer);
    write_metrics(report);
    observer.on_step(report);
    const int64_t every = stage.stage.checkpoint_every;
    if (state_.stage_step == stage.stage.steps || (every > 0 && state_.stage_step % every == 0))
      save_train_checkpoint(run_, model_, optimizer, state_, stage.stage.keep_checkpoints);
  }
}

std::vector<std::string> Trainer::data_paths(const StageRecipe& stage) const {
  constexpr std::string_view kRun = "{run}";
  std::vector<std::string> out = stage.stage.data;
  for (std::string& path : out)
    if (const size_t at = path.find(kRun); at != path.npos) path.replace(at, kRun.size(), run_);
  return out;
}

StepReport Trainer::step(const StageRecipe& stage, Batcher& batcher, Optimizer& optimizer) {
  const double begin_s = now_s();
  StepReport r{.stage = &stage};
  const int64_t windows = batch_size_at(stage.schedule, state_.stage_step, stage.batch.batch_size);
  r.rows = windows * stage.batch.seq_len;
  const TrainBatch batch =
      train_batch(batcher.batch(static_cast<uint64_t>(state_.stage_step)), r.rows);
  const LossCounts counts = count_losses(batch);
  for (size_t first = 0; first + 1 < batch.bounds.size();) {
    const TrainBatch part = take_part(batch, stage.stage.rows_per_pass, &first);
    Tape tape;
    Ctx pass = ctx_;
    pass.tape = &tape;
    r.loss.add(run_objective(pass, model_, part, counts, stage.objective));
  }
  r.grad_norm = optimizer.grad_norm(ctx_);
  if (!std::isfinite(r.grad_norm) || !std::isfinite(r.loss.total))
    throw Error(Code::kDataLoss,
                fmt::format("step {} of {}: the loss is {} and the gradient norm {}",
                            state_.stage_step + 1, stage.stage.name, r.loss.total, r.grad_norm),
                "lower the learning rate; the last checkpoint is intact");
  r.learning_rate = learning_rate_at(stage.schedule, state_.stage_step, stage.stage.steps);
  optimizer.step(ctx_, r.learning_rate, r.grad_norm);
  if (stage.stage.bias_update_speed > 0)
    for (const Param& b : model_.weights.buffers)
      if (const auto& count = r.loss.expert_count; layer_of(b.name) < count.size())
        update_correction_bias(b.value, count[layer_of(b.name)], stage.stage.bias_update_speed);
  model_.weights.pack(ctx_, true);
  r.max_load = max_load_of(r.loss);
  r.seconds = now_s() - begin_s;
  r.tokens_per_s = static_cast<double>(r.rows) / r.seconds;
  ++state_.stage_step;
  ++state_.global_step;
  state_.tokens += static_cast<int64_t>(counts.lm);
  state_.seconds += r.seconds;
  r.state = state_;
  r.memory = ctx_.arena.stats();
  return r;
}

void Trainer::write_metrics(const StepReport& r) {
  std::vector<Metric> m = {{"loss/total", r.loss.total},
                           {"optimizer/grad_norm", r.grad_norm},
                           {"optimizer/learning_rate", r.learning_rate},
                           {"speed/tokens_per_s", r.tokens_per_s}};
  if (r.loss.lm != 0) m.push_back({"loss/lm", r.loss.lm});
  if (r.loss.mtp != 0) m.push_back({"loss/mtp", r.loss.mtp});
  if (r.loss.balance != 0) m.push_back({"experts/balance_loss", r.loss.balance});
  if (r.max_load != 0) m.push_back({"experts/max_load", r.max_load});
  if (r.loss.mean_kl() != 0) m.push_back({"indexer/kl", r.loss.mean_kl()});
  if (r.loss.mean_mass() != 0) m.push_back({"indexer/mass", r.loss.mean_mass()});
  log_->log(r.state.global_step, m);
}

}  // namespace fathom
