// The loop of reinforcement learning, one step at a time.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "fathom/base/bytes.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/rng.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/rl/rl_figures.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/rl/rl_update.h"
#include "fathom/rl/rollout_codec.h"
#include "fathom/rl/rollout_store.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Adds the time between its beginning and its end.
class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(seconds), begin_s_(now_s()) {}
  ~Stopwatch() { *seconds_ += now_s() - begin_s_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double* seconds_;
  double begin_s_;
};

Tokenizer run_tokenizer(const std::string& run) {
  const std::string path = run + "/tokenizer.json";
  if (!file_exists(path))
    throw Error(Code::kNotFound, fmt::format("{}: expected a tokenizer, found none", path),
                "name it with --tokenizer");
  return Tokenizer::load(path);
}

class RlSteps final : public StageSteps {
 public:
  RlSteps(const RlOptions& options, const StageContext& context, const TrainState& state)
      : c_(context),
        o_(with_folders(options, context.run)),
        tokenizer_(run_tokenizer(context.run)),
        gradient_(context.ctx, context.comm, context.model.weights.params),
        alarms_(options.loop, options.policy.surrogate != "off") {
    if (o_.policy.indexer_kl_weight > 0 && c_.stage.stage.trains == "policy")
      throw Error(Code::kInvalidArgument,
                  "trains: expected policy_indexer with indexer_kl_weight, found policy");
    if (uses_reference(o_)) reference_ = first_reference();
    if (uses_critic(o_))
      critic_.emplace(c_.ctx, c_.model, o_.critic, c_.stage.optimizer, c_.stage.stage.rows_per_pass,
                      c_.comm);
    if (!c_.comm.is_first()) return;
    source_.emplace(context.ctx, context.model, tokenizer_, o_, state.global_step);
    store_.emplace(c_.run, RolloutStore::Mode::kWrite);
    store_->truncate_after(state.global_step);
    for (int64_t step : alarm_steps())
      if (step > state.global_step) fs::remove_all(alarm_folder(c_.run, step));
  }

  void step(const TrainState& before, StepReport* r) override;
  void save(const std::string& folder) const override;
  void load(const std::string& checkpoint) override;

 private:
  void update(const TrainState& before, PreparedStep& p, RlStepFigures* f, StepReport* r);
  void update_once(const TrainState& before, std::span<const PolicySample> part, double delta,
                   RlStepFigures* f, StepReport* r);
  RolloutBatch sample(int64_t step, RlStepFigures* f);
  Model first_reference() const;
  bool fixed_reference() const { return !o_.loop.reference.empty(); }
  void evaluate(std::vector<Metric>* to);
  void dump(int64_t step, const std::vector<std::string>& alarms, StepReport* r);
  std::vector<int64_t> alarm_steps() const;
  StageContext c_;
  RlOptions o_;
  Tokenizer tokenizer_;
  // The first rank samples, keeps the record, evaluates and raises alarms; the others update.
  std::optional<RolloutStore> store_;
  std::optional<RolloutSource> source_;
  SharedGradient gradient_;
  std::optional<Model> reference_;
  std::optional<Critic> critic_;
  RlAlarms alarms_;
};

Model RlSteps::first_reference() const {
  if (!fixed_reference()) return copy_weights(c_.ctx, c_.model);
  Model model = load_model(c_.ctx, o_.loop.reference, WeightUse::kServe);
  check_vocabulary(model, c_.model, o_.loop.reference);
  return model;
}

void RlSteps::update_once(const TrainState& before, std::span<const PolicySample> part,
                          double delta, RlStepFigures* f, StepReport* r) {
  const StageRecipe& stage = c_.stage;
  const PolicyReport report =
      run_minibatch(c_.ctx, c_.model, part, delta, o_, stage.stage.rows_per_pass, gradient_);
  f->policy.add(report);
  const double norm = c_.optimizer.grad_norm(c_.ctx);
  r->grad_norm = std::isfinite(norm) ? std::max(r->grad_norm, norm) : norm;
  r->loss.total -= report.objective;
  dump(before.global_step + 1, alarms_.of_update(report.replay.mean_entropy(), norm), r);
  check_finite(before, stage, *r);
  r->learning_rate = learning_rate_at(stage.schedule, before.stage_step, stage.stage.steps);
  c_.optimizer.step(c_.ctx, r->learning_rate, norm);
  c_.model.weights.pack(c_.ctx, true);
  if (critic_) f->critic.add(critic_->update(part));
}

void RlSteps::update(const TrainState& before, PreparedStep& p, RlStepFigures* f, StepReport* r) {
  const Stopwatch watch(&f->update_s);
  std::vector<PolicySample>& samples = p.samples;
  const size_t parts = std::min(static_cast<size_t>(o_.loop.minibatches), samples.size());
  for (int64_t epoch = 0; epoch < o_.loop.epochs; ++epoch) {
    Rng rng(static_cast<uint64_t>(o_.loop.seed), "minibatch",
            static_cast<uint64_t>(before.global_step * o_.loop.epochs + epoch));
    if (parts > 1)
      for (size_t i = samples.size(); i > 1; --i) std::swap(samples[i - 1], samples[rng.below(i)]);
    for (size_t k = 0; k < parts; ++k) {
      const size_t first = samples.size() * k / parts, end = samples.size() * (k + 1) / parts;
      update_once(before, std::span(samples).subspan(first, end - first), p.opsm_delta, f, r);
    }
  }
  const auto updates = static_cast<double>(parts * static_cast<size_t>(o_.loop.epochs));
  if (parts > 0) r->loss.total /= updates;
  if (parts > 0) f->policy.indexer_kl /= updates;
  if (parts > 0) f->critic.loss /= updates;
}

// Those of the first rank, on all.
void broadcast_rollouts(Comm& comm, std::vector<Rollout>* rollouts) {
  if (comm.size() == 1) return;
  ByteWriter out;
  for (const Rollout& r : *rollouts) out.text(encode_rollout(r));
  std::string bytes = out.take();
  broadcast_text(comm, &bytes, 0);
  if (comm.is_first()) return;
  ByteReader in(bytes, "the first rank", "rollouts");
  while (!in.done()) rollouts->push_back(decode_rollout(in.text(), "the first rank"));
}

// Rollouts, as the store keeps them.
RolloutBatch RlSteps::sample(int64_t step, RlStepFigures* f) {
  RolloutBatch batch;
  if (source_) {
    const Stopwatch watch(&f->rollout_s);
    batch = source_->next(step);
  }
  if (source_) {
    f->rollout = source_->take_stats();
    f->reward_s = source_->take_reward_s();
    f->rollout_s -= f->reward_s;
    store_->write_step(step, batch.rollouts);
  }
  broadcast_rollouts(c_.comm, &batch.rollouts);
  return batch;
}

void RlSteps::step(const TrainState& before, StepReport* r) {
  const LoopOptions& loop = o_.loop;
  if (before.stage_step == 0 && loop.eval_every > 0 && source_) {
    std::vector<Metric> first;
    evaluate(&first);
    c_.log.log(before.global_step, first);
  }
  if (reference_ && loop.reference_every > 0 && before.stage_step % loop.reference_every == 0)
    assign_weights(c_.ctx, c_.model, 0, &*reference_);
  const int64_t step = before.global_step + 1;
  RlStepFigures f{.version = before.global_step};
  const RolloutBatch batch = sample(step, &f);
  f.batch = &batch;
  PreparedStep prepared = prepare_step(c_.ctx, c_.model, reference_ ? &*reference_ : nullptr,
                                       batch.rollouts, o_, f.version, c_.stage.stage.rows_per_pass);
  f.prepared = &prepared;
  if (critic_) {
    const Stopwatch watch(&prepared.replay_s);
    critic_->judge(prepared.samples);
  }
  dump(step, alarms_.of_rollouts(f), r);
  update(before, prepared, &f, r);
  for (const Rollout* one : prepared.rollouts) {
    r->rows += std::ssize(one->tokens);
    r->tokens += one->num_sampled();
  }
  if (!source_) return;
  source_->weights_changed(step);
  r->metrics = rl_metrics(f, o_);
  r->detail = rl_detail(f);
  const int64_t done = before.stage_step + 1;
  if (loop.eval_every > 0 && (done % loop.eval_every == 0 || done == c_.stage.stage.steps))
    evaluate(&r->metrics);
}

void RlSteps::evaluate(std::vector<Metric>* to) {
  TaskOptions tasks = o_.tasks;
  if (!o_.loop.eval_tasks.empty()) tasks.problems = o_.loop.eval_tasks;
  const PolicyUnderTest policy{c_.ctx, c_.model, tokenizer_, policy_selection(c_.model.config)};
  const std::vector<TaskScore> scores = evaluate_tasks(
      policy, TaskSource(tasks), RewardMix(o_.reward), source_->tools(), o_.rollout, o_.eval);
  const std::vector<Metric> m = eval_metrics(scores);
  to->insert(to->end(), m.begin(), m.end());
}

std::vector<int64_t> RlSteps::alarm_steps() const {
  std::vector<int64_t> out;
  const std::string folder = c_.run + "/alarms";
  if (!folder_exists(folder)) return out;
  for (const std::string& name : list_folder(folder))
    if (name.starts_with("step_")) out.push_back(std::stoll(name.substr(5)));
  return out;
}

void RlSteps::dump(int64_t step, const std::vector<std::string>& alarms, StepReport* r) {
  if (alarms.empty() || !c_.comm.is_first()) return;
  const std::string folder = alarm_folder(c_.run, step);
  std::string where = "the rollouts are kept";
  if (std::ssize(alarm_steps()) < o_.loop.alarm_dumps && !folder_exists(folder)) {
    const std::string temporary = folder + ".tmp";
    fs::remove_all(temporary);
    make_folders(temporary);
    save_model(temporary, c_.model);
    fs::rename(temporary, folder);
    where = "rollouts and weights are kept for `fathom rollouts --replay`";
  }
  for (const std::string& alarm : alarms)
    r->alarms.push_back(fmt::format("step {}: {}; {}", step, alarm, where));
}

void RlSteps::save(const std::string& folder) const {
  source_->save(folder);
  if (reference_ && !fixed_reference()) save_model(folder + "/reference", *reference_);
  if (critic_) critic_->save(folder + "/critic");
  Json state = Json::object();
  state.set("entropy", Json::number(alarms_.state().entropy));
  Json norms = Json::array();
  for (const double n : alarms_.state().grad_norms) norms.push(Json::number(n));
  state.set("grad_norms", std::move(norms));
  write_file_atomic(folder + "/alarms.json", state.dump(2) + "\n");
}

void RlSteps::load(const std::string& checkpoint) {
  if (source_) source_->load(checkpoint);
  if (critic_) critic_->load(checkpoint + "/critic");
  if (reference_ && !fixed_reference()) {
    load_model_weights(checkpoint + "/reference", *reference_);
    reference_->weights.pack(c_.ctx, false);
  }
  const std::string path = checkpoint + "/alarms.json";
  const Json state = Json::parse(read_file(path), path);
  RlAlarms::State alarms{.entropy = state.at("entropy").as_double()};
  for (const Json& n : state.at("grad_norms").items()) alarms.grad_norms.push_back(n.as_double());
  alarms_.restore(std::move(alarms));
}

}  // namespace

std::string alarm_folder(const std::string& run, int64_t step) {
  return fmt::format("{}/alarms/step_{:08}", run, step);
}

std::unique_ptr<StageSteps> begin_rl(const RlOptions& options, const StageContext& context,
                                     const TrainState& state) {
  return std::make_unique<RlSteps>(options, context, state);
}

}  // namespace fathom
