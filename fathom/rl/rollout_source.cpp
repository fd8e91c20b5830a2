#include "fathom/rl/rollout_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/rng.h"
#include "fathom/infer/session.h"
#include "fathom/rl/advantage.h"
#include "fathom/rl/rollout_codec.h"

namespace fathom {
namespace {

constexpr const char* kRight = "right";

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<Model> rounded_copy(const Ctx& ctx, const Model& model, int64_t bits) {
  if (bits == 0) return nullptr;
  auto copy = std::make_unique<Model>(copy_weights(ctx, model));
  assign_weights(ctx, model, bits, copy.get());
  return copy;
}

}  // namespace

int answer_right(const Rollout& r) {
  for (const RewardPart& p : r.rewards)
    if (p.name == kRight && p.weight == 0) return p.value > 0 ? 1 : 0;
  return -1;
}

void score_task(std::span<Rollout> group, const Task& task, const RlOptions& options,
                const Tokenizer& tokenizer, const RewardMix& rewards, const RewardTools& tools) {
  const Rng judge(static_cast<uint64_t>(options.loop.seed), "judge",
                  static_cast<uint64_t>(group[0].group));
  const std::vector<std::optional<bool>> right =
      score_rollouts(group, task.group(options.rollout.max_response_tokens, judge.key()), tokenizer,
                     rewards, tools);
  for (size_t i = 0; i < group.size(); ++i)
    if (right[i]) group[i].rewards.push_back({kRight, *right[i] ? 1.0 : 0.0, 0});
}

std::vector<std::span<const Rollout>> groups_of(std::span<const Rollout> rollouts) {
  std::vector<std::span<const Rollout>> out;
  for (size_t first = 0, end = 0; first < rollouts.size(); first = end) {
    while (end < rollouts.size() && rollouts[end].group == rollouts[first].group) ++end;
    out.push_back(rollouts.subspan(first, end - first));
  }
  return out;
}

bool can_learn_from(const Rollout& r) {
  return (r.stop == StopReason::kEnd || r.stop == StopReason::kLength) && r.num_sampled() > 0;
}

bool group_has_signal(std::span<const Rollout> group) {
  std::vector<double> rewards;
  for (const Rollout& r : group)
    if (can_learn_from(r)) rewards.push_back(r.reward);
  return has_signal(rewards);
}

KeySelection policy_selection(const ModelConfig& config) {
  return usable_selection(config, KeySelection::kSparse);
}

RolloutSource::RolloutSource(const Ctx& ctx, const Model& model, const Tokenizer& tokenizer,
                             const RlOptions& options, int64_t version)
    : ctx_(ctx),
      model_(model),
      tokenizer_(tokenizer),
      options_(options),
      tasks_(options.tasks),
      rewards_(options.reward),
      verifiers_(ctx, options.verifiers, has_programs(options)),
      rounded_(rounded_copy(ctx, model, options.loop.rollout_bits)),
      runner_(ctx, rounded_ ? *rounded_ : model, options.rollout, policy_selection(model.config),
              end_tokens(model.config, tokenizer), static_cast<uint64_t>(options.loop.seed)) {
  runner_.weights_changed(version);
  if (options.reward_model.empty()) return;
  reward_model_ = load_value_model(ctx, options.reward_model);
  check_vocabulary(reward_model_->model, model, options.reward_model);
}

void RolloutSource::ask(int64_t step, int64_t groups) {
  for (; groups > 0; --groups, ++next_group_) {
    const Task task = tasks_.draw(static_cast<uint64_t>(options_.loop.seed),
                                  static_cast<uint64_t>(next_group_), Split::kTrain);
    runner_.add({.step = step,
                 .group = next_group_,
                 .domain = task.domain,
                 .problem = task.problem.prompt,
                 .tokens = task_prompt(tokenizer_, task)});
  }
}

void RolloutSource::score(std::vector<Rollout>& group) {
  const double begin_s = now_s();
  const Task task = tasks_.draw(static_cast<uint64_t>(options_.loop.seed),
                                static_cast<uint64_t>(group[0].group), Split::kTrain);
  score_task(group, task, options_, tokenizer_, rewards_, verifiers_.tools());
  if (reward_model_) score_by_model(group);
  reward_s_ += now_s() - begin_s;
}

void RolloutSource::score_by_model(std::vector<Rollout>& group) {
  std::vector<std::vector<int32_t>> texts;
  for (const Rollout& r : group) texts.push_back(r.tokens);
  const std::vector<double> scores = reward_scores(ctx_, *reward_model_, texts);
  for (size_t i = 0; i < group.size(); ++i) {
    group[i].rewards.push_back({"reward_model", scores[i], options_.reward_model_weight});
    group[i].reward += options_.reward_model_weight * scores[i];
  }
}

RolloutBatch RolloutSource::sample(int64_t step) {
  const LoopOptions& loop = options_.loop;
  const bool dynamic = loop.dynamic_rounds > 0;
  DynamicSampling sampling{.groups = loop.prompts,
                           .max_rounds = std::max<int64_t>(loop.dynamic_rounds, 1)};
  RolloutBatch batch;
  int64_t kept = 0;
  do {
    const int64_t wanted = loop.prompts - sampling.kept;
    ask(step, wanted + loop.extra_groups - runner_.num_groups());
    kept = 0;
    for (std::vector<Rollout>& group : runner_.collect(wanted)) {
      score(group);
      kept += !dynamic || group_has_signal(group);
      std::ranges::move(group, std::back_inserter(batch.rollouts));
    }
  } while (sampling.refill(kept));
  batch.rounds = sampling.rounds;
  std::ranges::stable_sort(batch.rollouts, {}, &Rollout::group);
  return batch;
}

RolloutBatch RolloutSource::next(int64_t step) {
  while (std::ssize(waiting_) <= options_.loop.lag) waiting_.push_back(sample(step));
  RolloutBatch batch = std::move(waiting_.front());
  waiting_.pop_front();
  return batch;
}

void RolloutSource::weights_changed(int64_t version) {
  if (rounded_) assign_weights(ctx_, model_, options_.loop.rollout_bits, rounded_.get());
  runner_.weights_changed(version);
}

void RolloutSource::save(const std::string& folder) const {
  const RolloutsInFlight flight = runner_.in_flight();
  write_rollout_file(folder + "/rollouts_running.bin", flight.running);
  write_rollout_file(folder + "/rollouts_finished.bin", flight.finished);
  std::vector<Rollout> waiting;
  Json batches = Json::array();
  for (const RolloutBatch& b : waiting_) {
    Json one = Json::object();
    one.set("rollouts", Json::number(std::ssize(b.rollouts)));
    one.set("rounds", Json::number(b.rounds));
    batches.push(std::move(one));
    waiting.insert(waiting.end(), b.rollouts.begin(), b.rollouts.end());
  }
  write_rollout_file(folder + "/rollouts_waiting.bin", waiting);
  Json state = Json::object();
  state.set("next_group", Json::number(next_group_));
  state.set("waiting", std::move(batches));
  write_file_atomic(folder + "/rollouts.json", state.dump(2) + "\n");
}

void RolloutSource::load(const std::string& folder) {
  const std::string path = folder + "/rollouts.json";
  const Json state = Json::parse(read_file(path), path);
  next_group_ = state.at("next_group").as_int();
  const std::vector<Rollout> all = read_rollout_file(folder + "/rollouts_waiting.bin");
  waiting_.clear();
  auto from = all.begin();
  for (const Json& one : state.at("waiting").items()) {
    const int64_t n = one.at("rollouts").as_int();
    if (n < 0 || n > all.end() - from)
      throw Error(
          Code::kDataLoss,
          fmt::format("{}: expected {} waiting rollouts, found {}", path, n, all.end() - from),
          "resume from an earlier checkpoint");
    waiting_.push_back({{from, from + n}, one.at("rounds").as_int()});
    from += n;
  }
  runner_.restore({.running = read_rollout_file(folder + "/rollouts_running.bin"),
                   .finished = read_rollout_file(folder + "/rollouts_finished.bin")});
}

}  // namespace fathom
