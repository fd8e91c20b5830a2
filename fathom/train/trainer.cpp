#include "fathom/train/trainer.h"

#include <fmt/core.h>

#include <chrono>
#include <cmath>

#include "fathom/base/file.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/train/next_token.h"

namespace fathom {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void set_trainable(const Model& model, const std::string& trains) {
  constexpr std::string_view kLayers = "model.layers.";
  for (const Param& p : model.weights.params) {
    const bool indexer = p.name.find(".indexer.") != std::string::npos;
    const bool predicts = p.name.starts_with(kLayers) &&
                          model.config.is_mtp_layer(std::stoll(p.name.substr(kLayers.size())));
    bool learns = trains == "all" || (trains == "indexer") == indexer;
    if (trains == "policy") learns = !indexer && !predicts;
    if (trains == "policy_indexer") learns = !predicts;
    p.value.node()->needs_grad = learns;
  }
}

GradProducts choose_gradient_products(const Ctx& ctx, const std::string& option) {
  if (option != "auto" && option != "f32")
    throw Error(Code::kInvalidArgument,
                fmt::format("gradient_products: expected auto or f32, found \"{}\"", option));
  const bool split =
      option == "auto" && ctx.real == DType::kF32 && ctx.kernels.has_split_products();
  return split ? GradProducts::kSplit : GradProducts::kF32;
}

void check_finite(const TrainState& before, const StageRecipe& stage, const StepReport& r) {
  if (std::isfinite(r.grad_norm) && std::isfinite(r.loss.total)) return;
  throw Error(Code::kDataLoss,
              fmt::format("step {} of {}: the loss is {} and the gradient norm {}",
                          before.stage_step + 1, stage.stage.name, r.loss.total, r.grad_norm),
              "lower the learning rate; the last checkpoint is intact");
}

Trainer::Trainer(const Ctx& ctx, Recipe recipe, std::string run, bool resume, BatchTokens special,
                 std::vector<std::string>* notes, Comm* comm)
    : ctx_(ctx),
      alone_(comm ? nullptr : make_single_comm()),
      comm_(comm ? *comm : *alone_),
      recipe_(std::move(recipe)),
      run_(std::move(run)),
      special_(special),
      model_(random_model(ctx, recipe_.config, static_cast<uint64_t>(recipe_.seed))) {
  if (comm_.is_first()) find_checkpoint(resume, notes);
  broadcast_text(comm_, &resumed_from_, 0);
  if (!resumed_from_.empty()) state_ = read_train_state(resumed_from_);
  const std::string weights = resumed_from_.empty() ? recipe_.init : resumed_from_ + "/model";
  if (!weights.empty()) {
    load_model_weights(weights, model_);
    model_.weights.pack(ctx_, true);
  }
  log_ = comm_.is_first() ? open_log(resume) : std::make_unique<RunLog>();
}

Trainer::~Trainer() = default;

// The one to go on from, if any.
void Trainer::find_checkpoint(bool resume, std::vector<std::string>* notes) {
  if (!resume) {
    if (folder_exists(run_ + "/checkpoints"))
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected a folder without a run, found checkpoints", run_),
                  "resume it, or choose another folder");
  } else if (const auto checkpoint = newest_checkpoint(run_, notes)) {
    resumed_from_ = *checkpoint;
  } else if (notes) {
    notes->push_back("no complete checkpoint: the run starts anew");
  }
}

std::unique_ptr<RunLog> Trainer::open_log(bool resume) const {
  const bool had_log = resume && file_exists(run_ + "/metrics.sqlite");
  auto log =
      std::make_unique<RunLog>(run_, had_log ? RunLog::Mode::kResume : RunLog::Mode::kCreate);
  if (had_log) log->truncate_after(resumed_from_.empty() ? -1 : state_.global_step);
  log->set_config(recipe_.values());
  return log;
}

void Trainer::run(TrainObserver& observer) {
  while (state_.stage_idx < static_cast<int64_t>(recipe_.stages.size())) {
    const StageRecipe& stage = recipe_.stages[static_cast<size_t>(state_.stage_idx)];
    run_stage(stage, observer);
    observer.on_stage_end(stage, state_, model_);
    comm_.barrier();  // the next stage may read what this one has written
    ++state_.stage_idx;
    state_.stage_step = 0;
  }
}

void Trainer::run_stage(const StageRecipe& stage, TrainObserver& observer) {
  if (state_.stage_step == 0 && !stage.stage.from.empty())
    load_model_weights(path_in_run(stage.stage.from, run_), model_);
  ctx_.gradient_products = choose_gradient_products(ctx_, stage.stage.gradient_products);
  model_.weights.pack(ctx_, true);
  const bool shared = !stage.program || stage.program->shares_work();
  if (!shared && !comm_.is_first()) return follow_stage(stage);
  set_trainable(model_, stage.stage.trains);
  Optimizer optimizer(ctx_, model_.weights.params, stage.optimizer);
  const StageContext context{ctx_, model_, optimizer, stage, run_, *log_, special_, comm_};
  const std::unique_ptr<StageSteps> steps =
      stage.program ? stage.program->begin(context, state_) : begin_next_token(context);
  if (!resumed_from_.empty()) {
    load_optimizer(resumed_from_, &optimizer);
    steps->load(resumed_from_);
  }
  resumed_from_.clear();
  if (state_.stage_step == 0) log_->text(state_.global_step, "stage", stage.stage.name);
  observer.on_stage_begin(stage, state_);
  while (state_.stage_step < stage.stage.steps) {
    const StepReport report = step(stage, *steps);
    if (!shared) comm_.broadcast(&state_, sizeof state_, 0);
    write_metrics(report);
    observer.on_step(report);
    const int64_t every = stage.stage.checkpoint_every;
    if (comm_.is_first() &&
        (state_.stage_step == stage.stage.steps || (every > 0 && state_.stage_step % every == 0)))
      save_train_checkpoint(run_, model_, optimizer, state_, stage.stage.keep_checkpoints,
                            steps.get());
  }
  if (!shared) share_weights();
}

// A stage that the first rank runs alone, as another rank sees it.
void Trainer::follow_stage(const StageRecipe& stage) {
  resumed_from_.clear();
  while (state_.stage_step < stage.stage.steps) comm_.broadcast(&state_, sizeof state_, 0);
  share_weights();
  model_.weights.pack(ctx_, true);
}

void Trainer::share_weights() {
  for (const auto* list : {&model_.weights.params, &model_.weights.buffers})
    for (const Param& p : *list)
      comm_.broadcast(p.value->data, static_cast<size_t>(p.value->size_bytes()), 0);
}

StepReport Trainer::step(const StageRecipe& stage, StageSteps& steps) {
  const double begin_s = now_s();
  StepReport r{.stage = &stage};
  steps.step(state_, &r);
  r.seconds = now_s() - begin_s;
  r.tokens_per_s = static_cast<double>(r.rows) / r.seconds;
  ++state_.stage_step;
  ++state_.global_step;
  state_.tokens += r.tokens;
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
  m.insert(m.end(), r.metrics.begin(), r.metrics.end());
  log_->log(r.state.global_step, m);
  for (const std::string& alarm : r.alarms) log_->text(r.state.global_step, "alarm", alarm);
}

}  // namespace fathom
